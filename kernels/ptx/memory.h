// Loads and stores that another agent (the CPU, another SM) takes part in; one PTX instruction a function.
// cuda::ptx has none of these.
#ifndef DAK_KERNELS_PTX_MEMORY_H_
#define DAK_KERNELS_PTX_MEMORY_H_

#include <cstdint>

namespace dak::kernels::ptx {

__device__ inline uint64_t LoadRelaxedSys(const uint64_t* address) {
  uint64_t value;
  asm volatile("ld.relaxed.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(address) : "memory");
  return value;
}

__device__ inline void StoreRelaxedSys(uint64_t* address, uint64_t value) {
  asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(address), "l"(value) : "memory");
}

__device__ inline uint64_t LoadRelaxedGpu(const uint64_t* address) {
  uint64_t value;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(address) : "memory");
  return value;
}

__device__ inline uint64_t LoadAcquireGpu(const uint64_t* address) {
  uint64_t value;
  asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(address) : "memory");
  return value;
}

// Four words that other SMs write: each is read whole, from L2.
__device__ inline uint4 LoadRelaxedGpu(const uint4* address) {
  uint4 value;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(address)
               : "memory");
  return value;
}

__device__ inline void StoreRelaxedGpu(uint64_t* address, uint64_t value) {
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(address), "l"(value) : "memory");
}

__device__ inline void StoreRelaxedGpu(uint4* address, uint4 value) {
  asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(value.x), "r"(value.y),
               "r"(value.z), "r"(value.w)
               : "memory");
}

__device__ inline void StoreReleaseGpu(uint64_t* address, uint64_t value) {
  asm volatile("st.release.gpu.global.u64 [%0], %1;" ::"l"(address), "l"(value) : "memory");
}

__device__ inline void AddRelaxedGpu(uint64_t* address, uint64_t value) {
  asm volatile("red.relaxed.gpu.global.add.u64 [%0], %1;" ::"l"(address), "l"(value) : "memory");
}

// One instruction, where C++ gives a branch: so that many of them can be under way.
__device__ inline uint32_t LoadIf(const uint32_t* address, bool condition, uint32_t otherwise) {
  uint32_t value;
  asm volatile("{.reg .pred p; setp.ne.u32 p, %2, 0; mov.u32 %0, %3; @p ld.global.u32 %0, [%1];}"
               : "=&r"(value)
               : "l"(address), "r"(uint32_t{condition}), "r"(otherwise)
               : "memory");
  return value;
}

// As LoadRelaxedGpu and StoreRelaxedGpu of four words; where the condition doesn't hold, zeros and nothing.
__device__ inline uint4 LoadRelaxedGpuIf(const uint4* address, bool condition) {
  uint4 value;
  asm volatile(
      "{.reg .pred p; setp.ne.u32 p, %5, 0; mov.u32 %0, 0; mov.u32 %1, 0; mov.u32 %2, 0; mov.u32 %3, 0;"
      "@p ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];}"
      : "=&r"(value.x), "=&r"(value.y), "=&r"(value.z), "=&r"(value.w)
      : "l"(address), "r"(uint32_t{condition})
      : "memory");
  return value;
}

__device__ inline void StoreRelaxedGpuIf(uint4* address, uint4 value, bool condition) {
  asm volatile(
      "{.reg .pred p; setp.ne.u32 p, %5, 0; @p st.relaxed.gpu.global.v4.u32 [%0], {%1, %2, %3, %4};}" ::"l"(address),
      "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w), "r"(uint32_t{condition})
      : "memory");
}

__device__ inline void StoreIf(uint32_t* address, uint32_t value, bool condition) {
  asm volatile("{.reg .pred p; setp.ne.u32 p, %2, 0; @p st.global.u32 [%0], %1;}" ::"l"(address), "r"(value),
               "r"(uint32_t{condition})
               : "memory");
}

// The value before.
__device__ inline uint32_t AddAcqRelGpu(uint32_t* address, uint32_t value) {
  uint32_t before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;" : "=r"(before) : "l"(address), "r"(value) : "memory");
  return before;
}

__device__ inline void MaxRelaxedGpu(uint64_t* address, uint64_t value) {
  asm volatile("red.relaxed.gpu.global.max.u64 [%0], %1;" ::"l"(address), "l"(value) : "memory");
}

__device__ inline uint64_t GlobalTimerNs() {
  uint64_t value;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(value));
  return value;
}

}  // namespace dak::kernels::ptx

#endif  // DAK_KERNELS_PTX_MEMORY_H_
