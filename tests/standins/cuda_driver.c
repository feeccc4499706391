/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for NVIDIA's driver, libcuda.so.1, as far as counting GPUs goes. What it answers is
   in the environment: GPUS (how many), CU_INIT (a CUresult), CUDA (its version, as 13020). */

#include <stdlib.h>

static int number(const char *name)
{
    const char *value = getenv(name);
    return value ? atoi(value) : 0;
}

int cuInit(unsigned int flags)
{
    return flags ? 1 : number("CU_INIT");
}

int cuDeviceGetCount(int *count)
{
    *count = number("GPUS");
    return 0;
}

int cuDriverGetVersion(int *version)
{
    *version = number("CUDA");
    return 0;
}

int cuGetErrorName(int status, const char **name)
{
    if (status != 100)
        return 1;
    *name = "CUDA_ERROR_NO_DEVICE";
    return 0;
}
