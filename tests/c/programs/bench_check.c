/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of ei-bench by themselves, for tests that hold them against Python's:
 *
 *   machine ROOT            the machine's facts, as JSON
 *   sensors ROOT SECONDS    two readings so far apart, each a line of JSON
 *   record SECONDS          what the recorder's thread reads meanwhile, as JSON
 *   judged ROOT             the facts that are judged
 *   images BYTES SEED       random bytes as ei-bench's images are, in hexadecimal
 *   arrivals RATE COUNT SECONDS SEED   Poisson arrivals in ns
 *   crew SIZE FAILING       threads of which the last ones fail, and how all end
 *   energy                  of "SPANS" and "READINGS" on stdin, see test_bench_parts.py
 *   difference              of two lines of samples on stdin
 *   numbers                 each number of stdin, as the JSON writer writes it
 *   text TEXT               a text as the JSON writer writes it */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "crew.h"
#include "difference.h"
#include "json_writer.h"
#include "lists.h"
#include "machine.h"
#include "run.h"
#include "sensors.h"
#include "statistics.h"
#include "subject.h"
#include "timing.h"

static int print(bench_json *json)
{
    bench_json_raw(json, "\n", 1);
    fwrite(json->data, 1, json->bytes, stdout);
    int failed = json->failed;
    bench_json_clear(json);
    return failed;
}

static void nap(double seconds)
{
    struct timespec time = {(time_t)seconds, (long)(fmod(seconds, 1) * 1e9)};
    nanosleep(&time, NULL);
}

static int machine(const char *root)
{
    bench_machine found = {0};
    bench_json json = {0};
    if (bench_machine_describe(root, &found))
        return 1;
    bench_json_open(&json, '{');
    for (size_t i = 0; i < found.count; i++) {
        const bench_fact *one = &found.of[i];
        if (one->kind == BENCH_TEXT)
            bench_json_key_text(&json, one->name, one->text);
        else if (one->kind == BENCH_WHOLE)
            bench_json_key_whole(&json, one->name, (int64_t)one->number);
        else
            bench_json_key_number(&json, one->name,
                                  one->kind == BENCH_NUMBER ? one->number : NAN);
    }
    bench_json_close(&json, '}');
    bench_machine_clear(&found);
    return print(&json);
}

static int judged(const char *root)
{
    bench_machine found = {0};
    if (bench_machine_describe(root, &found))
        return 1;
    bench_facts facts = bench_machine_judged(&found);
    bench_json json = {0};
    bench_json_open(&json, '{');
    bench_json_key_number(&json, "cores", facts.cores);
    bench_json_key_text(&json, "cpu_governor", facts.cpu_governor);
    bench_json_key_text(&json, "jetpack", facts.jetpack);
    bench_json_key_text(&json, "l4t", facts.l4t);
    bench_json_key_text(&json, "gpu_clocks_locked", facts.gpu_clocks_locked);
    bench_json_close(&json, '}');
    bench_machine_clear(&found);
    return print(&json);
}

static int sensors(const char *root, double seconds)
{
    bench_sensors *opened;
    bench_row *row = eip_allocate(1, sizeof *row);
    int failed = !row || bench_sensors_open(root, 0, &opened);
    for (int i = 0; i < 2 && !failed; i++) {
        bench_json json = {0};
        bench_sensors_read(opened, row);
        bench_json_open(&json, '{');
        for (size_t j = 0; j < row->count; j++)
            bench_json_key_number(&json, row->names[j], row->values[j]);
        bench_json_close(&json, '}');
        failed = print(&json);
        fflush(stdout);
        if (!i)
            nap(seconds);
    }
    bench_sensors_close(opened);
    free(row);
    return failed;
}

static int record(double seconds)
{
    bench_recorder *recorder;
    bench_json json = {0};
    if (bench_recorder_start("", 0.05, &recorder))
        return 1;
    nap(seconds);
    const bench_trace *trace = bench_recorder_stop(recorder);
    bench_json_open(&json, '{');
    bench_json_key_numbers(&json, "times_s", trace->times_s, trace->count);
    for (size_t i = 0; i < trace->reading_count; i++)
        bench_json_key_numbers(&json, trace->readings[i].name, trace->readings[i].values,
                               trace->count);
    bench_json_close(&json, '}');
    bench_recorder_free(recorder);
    return print(&json);
}

static int images(size_t bytes, uint64_t seed)
{
    bench_subject subject = {.image_numbers = bytes};
    void *made;
    if (bench_subject_images(&subject, 1, seed, &made))
        return 1;
    for (size_t i = 0; i < bytes; i++)
        printf("%02x", ((unsigned char *)made)[i]);
    putchar('\n');
    free(made);
    return 0;
}

static int arrivals(char **argv)
{
    bench_longs found = {0};
    bench_limit limit = {atoll(argv[1]), atof(argv[2])};
    bench_json json = {0};
    int failed =
        bench_poisson_arrivals(atof(argv[0]), &limit, strtoull(argv[3], NULL, 10), &found);
    bench_json_open(&json, '{');
    bench_json_key_wholes(&json, "arrivals", found.values, found.count);
    bench_json_close(&json, '}');
    bench_longs_clear(&found);
    return print(&json) || failed;
}

static ei_status work(bench_crew *crew, int number, void *context)
{
    int failing = *(int *)context;
    if (number >= crew->size - failing)
        return eip_fail(EI_DEVICE, "thread %d failed", number);
    /* Those that wait for a time that is far away must not outlive the others. */
    bench_crew_wait_until(crew, crew->begin_ns + (failing ? 3600000000000 : 1000000));
    return EI_OK;
}

static int crew(int size, int failing)
{
    bench_crew all;
    ei_status status = bench_crew_run(&all, size, work, NULL, &failing);
    printf("%s %d %s\n", ei_status_name(status), all.ended, status ? ei_last_error() : "");
    return 0;
}

/* Read "COUNT NUMBER..." of stdin. */
static double *read_numbers(size_t *count)
{
    unsigned long long many;
    if (scanf("%llu", &many) != 1)
        exit(1);
    double *found = calloc(many + 1, sizeof *found);
    for (*count = 0; found && *count < many; ++*count)
        if (scanf("%lf", &found[*count]) != 1)
            exit(1);
    return found;
}

static int64_t *read_wholes(size_t *count)
{
    double *numbers = read_numbers(count);
    int64_t *found = calloc(*count + 1, sizeof *found);
    for (size_t i = 0; found && i < *count; i++)
        found[i] = (int64_t)numbers[i];
    free(numbers);
    return found;
}

/* stdin: concurrency, samples, starts, times, the power at those times ("nan" where missing). */
static int energy(void)
{
    size_t count, times, values;
    int concurrency;
    if (scanf("%d", &concurrency) != 1)
        return 1;
    int64_t *samples = read_wholes(&count), *starts = read_wholes(&count);
    double *times_s = read_numbers(&times), *watts = read_numbers(&values);
    bench_reading readings[] = {{"load_average_1min", times_s}, {"power_w.package-0", watts}};
    bench_trace trace = {
        .count = times, .times_s = times_s, .reading_count = 2, .readings = readings};
    bench_series series = {.name = "x",
                           .batch = 2,
                           .samples_ns = samples,
                           .starts_ns = starts,
                           .count = count,
                           .concurrency = concurrency};
    bench_energy found;
    if (bench_energy_of(&series, &trace, &found))
        printf("%.17g %.17g %s\n", found.joules_per_image, found.mean_power_w, found.source);
    else
        puts("none");
    free(samples);
    free(starts);
    free(times_s);
    free(watts);
    return 0;
}

static int difference(void)
{
    size_t a_count, b_count;
    int64_t *a = read_wholes(&a_count), *b = read_wholes(&b_count);
    bench_difference found;
    int failed = !bench_compare(a, a_count, b, b_count, &found);
    printf("%.17g %.17g %.17g\n", found.ratio, found.low, found.high);
    free(a);
    free(b);
    return failed;
}

static int numbers(void)
{
    bench_json json = {0};
    double value;
    bench_json_open(&json, '[');
    while (scanf("%lf", &value) == 1)
        bench_json_number(&json, value);
    bench_json_close(&json, ']');
    return print(&json);
}

static int text(const char *value)
{
    bench_json json = {0};
    bench_json_text(&json, value);
    return print(&json);
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    if (!strcmp(command, "machine") && argc == 3)
        return machine(argv[2]);
    if (!strcmp(command, "judged") && argc == 3)
        return judged(argv[2]);
    if (!strcmp(command, "sensors") && argc == 4)
        return sensors(argv[2], atof(argv[3]));
    if (!strcmp(command, "record") && argc == 3)
        return record(atof(argv[2]));
    if (!strcmp(command, "images") && argc == 4)
        return images(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
    if (!strcmp(command, "arrivals") && argc == 6)
        return arrivals(argv + 2);
    if (!strcmp(command, "crew") && argc == 4)
        return crew(atoi(argv[2]), atoi(argv[3]));
    if (!strcmp(command, "energy"))
        return energy();
    if (!strcmp(command, "difference"))
        return difference();
    if (!strcmp(command, "numbers"))
        return numbers();
    if (!strcmp(command, "text") && argc == 3)
        return text(argv[2]);
    fprintf(stderr, "what?\n");
    return 2;
}
