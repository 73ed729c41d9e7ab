// A precompiled header needs a target with one source.
