/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* sched_getaffinity */
#include "plan.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "json_writer.h"
#include "progress.h"

#define MAX_S 86400.0
#define MAX_WARM_UP_S 3600.0
#define MAX_RATE_PER_S 1e6
/* Above this a share of what the model can do is no load any more, but a pile. */
#define MAX_SHARE 10.0

static ei_status check_limits(const bench_plan *plan)
{
    if (plan->iterations && plan->duration_s > 0)
        return eip_fail(EI_INVALID_ARGUMENT, "give --iterations or --duration, not both");
    if (plan->iterations < 0 || plan->iterations > BENCH_MAX_SAMPLES)
        return eip_fail(EI_INVALID_ARGUMENT, "--iterations must be from 1 to %d, got %lld",
                        BENCH_MAX_SAMPLES, (long long)plan->iterations);
    if (plan->duration_s < 0 || plan->duration_s > MAX_S)
        return eip_fail(EI_INVALID_ARGUMENT,
                        "--duration must be above 0 s and at most a day, got %g s",
                        fabs(plan->duration_s));
    if (!(plan->warm_up_s > 0 && plan->warm_up_s <= MAX_WARM_UP_S))
        return eip_fail(EI_INVALID_ARGUMENT,
                        "--warm-up must be above 0 s and at most an hour, got %g s",
                        plan->warm_up_s);
    return EI_OK;
}

static ei_status check_rate(const bench_plan *plan)
{
    if (plan->rate[1] < 0 || plan->rate[1] > MAX_RATE_PER_S)
        return eip_fail(EI_INVALID_ARGUMENT,
                        "--rate must be above 0 and at most %.0f a second, got %g",
                        MAX_RATE_PER_S, fmax(0, plan->rate[1]));
    if (plan->rate[0] < 0 || plan->rate[0] > MAX_SHARE)
        return eip_fail(EI_INVALID_ARGUMENT,
                        "--rate must be above 0 %% and at most %.0f%% of the throughput, got %g%%",
                        100 * MAX_SHARE, 100 * fmax(0, plan->rate[0]));
    return EI_OK;
}

/* Whether calls come at a rate of their own. */
static bool offers(const bench_plan *plan)
{
    return plan->rate[1] > 0 || plan->rate[0] > 0;
}

ei_status bench_plan_check(const bench_plan *plan)
{
    ei_status status = check_limits(plan);
    if (!status)
        status = check_rate(plan);
    if (status)
        return status;
    for (int i = 0; i < plan->batches.count; i++)
        if (plan->batches.of[i] < 1 || plan->batches.of[i] > BENCH_MAX_BATCH)
            return eip_fail(EI_INVALID_ARGUMENT, "--batch must be numbers from 1 to %d, got %d",
                            BENCH_MAX_BATCH, plan->batches.of[i]);
    if (plan->label && (!*plan->label || bench_json_characters(plan->label) > BENCH_MAX_LABEL))
        return eip_fail(EI_INVALID_ARGUMENT, "a label has 1 to %d characters", BENCH_MAX_LABEL);
    if (plan->mlperf && (offers(plan) || plan->concurrency > 1 || plan->stages ||
                         plan->batches.count > 1 || plan->batches.of[0] != 1))
        return eip_fail(EI_INVALID_ARGUMENT,
                        "MLPerf's single stream is one query of one image after the other; "
                        "leave out --batch, --concurrency, --rate and --stages");
    return EI_OK;
}

const char *bench_plan_mode(const bench_plan *plan)
{
    if (plan->mlperf)
        return "mlperf";
    if (offers(plan))
        return "load";
    return plan->concurrency == 1 ? "turns" : "concurrent";
}

/* -------------------------------------------------------------------------------- limits -- */

bench_limit bench_limit_of(const bench_plan *plan, int64_t most)
{
    if (plan->duration_s > 0)
        return (bench_limit){most, plan->duration_s};
    return (bench_limit){plan->iterations ? plan->iterations : BENCH_DEFAULT_ITERATIONS, 0};
}

bool bench_limit_over(const bench_limit *limit, int64_t samples, int64_t elapsed_ns)
{
    return samples >= limit->samples ||
           (limit->duration_s > 0 && (double)elapsed_ns >= limit->duration_s * 1e9);
}

void bench_limit_tell(const bench_limit *limit, const char *step, int64_t samples,
                      int64_t elapsed_ns)
{
    int64_t total = limit->duration_s > 0 ? llround(limit->duration_s * 1e3) : limit->samples;
    int64_t done = limit->duration_s > 0 ? elapsed_ns / 1000000 : samples;
    bench_tell(step, done < total ? done : total, total);
}

ei_status bench_check_threads(int64_t threads)
{
    cpu_set_t usable;
    int cores = sched_getaffinity(0, sizeof usable, &usable) ? 1024 : CPU_COUNT(&usable);
    if (threads <= cores)
        return EI_OK;
    return eip_fail(EI_INVALID_ARGUMENT,
                    "--threads must be at most %d, as many cores as this process may use, got "
                    "%lld: more of them fight each other",
                    cores, (long long)threads);
}

/* ------------------------------------------------------------------------------- readers -- */

const char *bench_read_batches(const char *text, void *value)
{
    static const char wanted[] = "numbers from 1 to 4096 such as 1,8, at most 16 of them";
    bench_batches found = {0};
    for (const char *at = text;; at++) {
        size_t digits = strspn(at, "0123456789");
        int32_t batch = (int32_t)strtol(at, NULL, 10);
        bool twice = false;
        if (!digits || digits > 4)
            return wanted;
        for (int i = 0; i < found.count; i++)
            twice |= found.of[i] == batch;
        if (!twice && found.count == BENCH_MAX_BATCHES)
            return wanted;
        if (!twice)
            found.of[found.count++] = batch;
        at += digits;
        if (!*at)
            break;
        if (*at != ',')
            return wanted;
    }
    memcpy(value, &found, sizeof found);
    return NULL;
}

/* Read digits, and a point with digits behind it: no sign, no exponent, no blank. Return what
 * follows, or NULL. */
static const char *read_decimal(const char *text, size_t most, double *value)
{
    size_t whole = strspn(text, "0123456789");
    const char *end = text + whole;
    if (!whole || whole > most)
        return NULL;
    if (*end == '.') {
        size_t part = strspn(end + 1, "0123456789");
        if (!part || part > 6)
            return NULL;
        end += 1 + part;
    }
    *value = strtod(text, NULL);
    return end;
}

const char *bench_read_seconds(const char *text, void *value)
{
    double seconds;
    const char *unit = read_decimal(text, 6, &seconds);
    if (unit && (!strcmp(unit, "m") || !strcmp(unit, "min")))
        seconds *= 60;
    else if (!unit || (*unit && strcmp(unit, "s")))
        return "seconds such as 30s, or minutes such as 2m";
    if (!(seconds > 0))
        return "above 0 s";
    memcpy(value, &seconds, sizeof seconds);
    return NULL;
}

const char *bench_read_rate(const char *text, void *rate)
{
    static const char wanted[] = "calls a second such as 20/s, or a share such as 80%";
    double given[2] = {0}, value;
    const char *unit = read_decimal(text, 7, &value);
    if (!unit || (strcmp(unit, "/s") && strcmp(unit, "%")))
        return wanted;
    if (!(value > 0))
        return "above 0";
    if (*unit == '%')
        given[0] = value / 100;
    else
        given[1] = value;
    memcpy(rate, given, sizeof given);
    return NULL;
}
