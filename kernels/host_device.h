// What a function needs to run on both sides: nvcc compiles it for device and host, others for the host, so that tests
// run on a CPU what kernels do.
#ifndef DAK_KERNELS_HOST_DEVICE_H_
#define DAK_KERNELS_HOST_DEVICE_H_

#if defined(__CUDACC__)
#define DAK_HOST_DEVICE __host__ __device__
#else
#define DAK_HOST_DEVICE
#endif

#endif  // DAK_KERNELS_HOST_DEVICE_H_
