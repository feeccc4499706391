/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers as numpy draws them: PCG64 (O'Neill 2014, XSL RR 128/64), seeded through numpy's
 * SeedSequence (O'Neill 2015, "Developing a seed_seq alternative"). The bootstrap then draws the
 * same blocks in C and in Python. */
#include "statistics.h"

#include <math.h>

__extension__ typedef unsigned __int128 wide;

#define POOL 4

static wide joined(const uint64_t halves[2])
{
    return (wide)halves[0] << 64 | halves[1];
}

static void split(wide whole, uint64_t halves[2])
{
    halves[0] = (uint64_t)(whole >> 64);
    halves[1] = (uint64_t)whole;
}

/* Seeding: 32-bit words are mixed, each with a constant that moves on. ------------------------- */

static uint32_t stirred(uint32_t value, uint32_t *constant, uint32_t factor)
{
    value ^= *constant;
    *constant *= factor;
    value *= *constant;
    return value ^ value >> 16;
}

static uint32_t mixed(uint32_t left, uint32_t right)
{
    uint32_t value = left * UINT32_C(0xca01f9dd) - right * UINT32_C(0x4973f715);
    return value ^ value >> 16;
}

/* Make `count` words of a seed. */
static void spread_seed(uint64_t seed, uint32_t *words, int count)
{
    uint32_t pool[POOL], constant = UINT32_C(0x43b0d7e5);
    /* Words that a seed does not have are zeroes: one beyond 32 bits has two. */
    const uint32_t entropy[POOL] = {(uint32_t)seed, (uint32_t)(seed >> 32), 0, 0};
    for (int i = 0; i < POOL; i++)
        pool[i] = stirred(entropy[i], &constant, UINT32_C(0x931e8875));
    for (int from = 0; from < POOL; from++)
        for (int to = 0; to < POOL; to++)
            if (from != to)
                pool[to] = mixed(pool[to], stirred(pool[from], &constant, UINT32_C(0x931e8875)));
    constant = UINT32_C(0x8b51f9dd);
    for (int i = 0; i < count; i++)
        words[i] = stirred(pool[i % POOL], &constant, UINT32_C(0x58f38ded));
}

void bench_random_begin(bench_random *random, uint64_t seed)
{
    uint32_t words[8];
    uint64_t halves[4];
    spread_seed(seed, words, 8);
    for (int i = 0; i < 4; i++)
        halves[i] = words[2 * i] | (uint64_t)words[2 * i + 1] << 32;
    *random = (bench_random){0};
    wide step = joined(halves + 2) << 1 | 1;
    split(step, random->step);
    /* The generator's own way of starting: one step from zero, the seed added, another step. */
    split(step + joined(halves), random->state);
    bench_random_64(random);
}

uint64_t bench_random_64(bench_random *random)
{
    const wide factor = (wide)UINT64_C(2549297995355413924) << 64 | UINT64_C(4865540595714422341);
    wide state = joined(random->state) * factor + joined(random->step);
    split(state, random->state);
    uint64_t folded = (uint64_t)(state >> 64) ^ (uint64_t)state;
    unsigned turn = (unsigned)(state >> 122);
    return folded >> turn | folded << (-turn & 63);
}

static uint32_t random_32(bench_random *random)
{
    if (random->has_half) {
        random->has_half = false;
        return random->half;
    }
    uint64_t both = bench_random_64(random);
    random->has_half = true;
    random->half = (uint32_t)(both >> 32);
    return (uint32_t)both;
}

/* Lemire (2019): a product instead of a division, and a new draw where it would be unfair. */
uint32_t bench_random_below(bench_random *random, uint64_t below)
{
    if (below <= 1)
        return 0;
    if (below > UINT32_MAX)
        return random_32(random);
    uint64_t product = random_32(random) * below;
    if ((uint32_t)product < below) {
        uint32_t unfair = (uint32_t)(((UINT64_C(1) << 32) - below) % below);
        while ((uint32_t)product < unfair)
            product = random_32(random) * below;
    }
    return (uint32_t)(product >> 32);
}

void bench_shuffle(bench_random *random, double *values, size_t count)
{
    for (size_t i = count; i-- > 1;) {
        /* By masking, with a new draw where that is too large: numpy shuffles with this one. */
        uint64_t mask = i, other;
        for (unsigned shift = 1; shift < 64; shift *= 2)
            mask |= mask >> shift;
        do
            other = (i > UINT32_MAX ? bench_random_64(random) : random_32(random)) & mask;
        while (other > i);
        double moved = values[i];
        values[i] = values[other];
        values[other] = moved;
    }
}

double bench_random_share(bench_random *random)
{
    return (double)(bench_random_64(random) >> 11) * 0x1p-53;
}

double bench_random_exponential(bench_random *random)
{
    return -log1p(-bench_random_share(random));
}
