/* SPDX-License-Identifier: Apache-2.0 */
/* What ei-bench prints of a run: a table a batch, a column a series; and lines below. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "difference.h"
#include "lists.h"
#include "print.h"
#include "report.h"
#include "sysfiles.h"

#define WITH_INTERVALS 3 /* columns; for more the intervals have no room */
#define MAX_COLUMNS 16
#define MAX_ROWS 10
#define MAX_CELL 96

typedef struct grid {
    char head[MAX_COLUMNS][MAX_CELL]; /* the first is empty */
    char cells[MAX_ROWS][MAX_COLUMNS][MAX_CELL];
    int columns, rows;
} grid;

/* ------------------------------------------------------------------------------- drawing -- */

static int width_of(const char *text)
{
    int width = 0;
    for (; *text; text++)
        width += (*text & 0xc0) != 0x80;
    return width;
}

static void rule(FILE *file, const int *widths, int columns, const char *const marks[4])
{
    fputs(marks[0], file);
    for (int c = 0; c < columns; c++) {
        for (int i = 0; i < widths[c] + 2; i++)
            fputs(marks[1], file);
        fputs(c + 1 < columns ? marks[2] : marks[3], file);
    }
    fputc('\n', file);
}

static void line(FILE *file, char (*cells)[MAX_CELL], const int *widths, int columns,
                 const char *mark)
{
    fputs(mark, file);
    for (int c = 0; c < columns; c++) {
        int blanks = widths[c] - width_of(cells[c]);
        fprintf(file, " %*s", c ? blanks : 0, "");
        print_text(file, cells[c]);
        fprintf(file, "%*s %s", c ? 0 : blanks, "", mark);
    }
    fputc('\n', file);
}

static void draw(FILE *file, grid *table)
{
    static const char *const top[] = {"┏", "━", "┳", "┓"};
    static const char *const below[] = {"┡", "━", "╇", "┩"};
    static const char *const end[] = {"└", "─", "┴", "┘"};
    int widths[MAX_COLUMNS];
    for (int c = 0; c < table->columns; c++) {
        widths[c] = width_of(table->head[c]);
        for (int r = 0; r < table->rows; r++)
            if (width_of(table->cells[r][c]) > widths[c])
                widths[c] = width_of(table->cells[r][c]);
    }
    rule(file, widths, table->columns, top);
    line(file, table->head, widths, table->columns, "┃");
    rule(file, widths, table->columns, below);
    for (int r = 0; r < table->rows; r++)
        line(file, table->cells[r], widths, table->columns, "│");
    rule(file, widths, table->columns, end);
}

/* --------------------------------------------------------------------------------- cells -- */

static void number(double ms, char *text, size_t bytes)
{
    snprintf(text, bytes, ms < 100 ? "%.3f" : "%.1f", ms);
}

static void name_of(const bench_series *one, char *text)
{
    char rate[BENCH_RATE_TEXT];
    size_t used = (size_t)snprintf(text, MAX_CELL, "%.40s",
                                   strcmp(one->stage, "whole") ? one->stage : one->name);
    if (one->offered_per_s > 0) {
        bench_rate_text(one->offered_per_s, rate);
        used += (size_t)snprintf(text + used, MAX_CELL - used, " at %.20s/s", rate);
    }
    if (one->concurrency > 1)
        snprintf(text + used, MAX_CELL - used, ", %d threads", one->concurrency);
}

static void add_column(grid *table, const bench_series *one, const bench_summary *summary,
                       bool intervals)
{
    static const char *const labels[] = {"p50 ms",   "p90 ms", "p95 ms", "p99 ms",
                                         "p99.9 ms", "max ms", "mean ms"};
    int c = table->columns++, r = 0;
    name_of(one, table->head[c]);
    for (; r < 7; r++) {
        double ms = r < BENCH_PERCENTS ? summary->percentiles_ms[r]
                    : r == 5           ? summary->max_ms
                                       : summary->mean_ms;
        char value[24], low[24], high[24];
        number(ms, value, sizeof value);
        snprintf(table->cells[r][0], MAX_CELL, "%s", labels[r]);
        if (intervals && r < BENCH_PERCENTS && summary->bounded[r]) {
            number(summary->intervals_ms[r][0], low, sizeof low);
            number(summary->intervals_ms[r][1], high, sizeof high);
            snprintf(table->cells[r][c], MAX_CELL, "%s (%s-%s)", value, low, high);
        } else {
            snprintf(table->cells[r][c], MAX_CELL, "%s", value);
        }
    }
    if (!strcmp(one->stage, "whole")) {
        snprintf(table->cells[r][0], MAX_CELL, "%s",
                 strcmp(one->name, "head") ? "images/s" : "embeddings/s");
        snprintf(table->cells[r++][c], MAX_CELL, "%.1f", bench_throughput_images_per_s(one));
    }
    snprintf(table->cells[r][0], MAX_CELL, "samples");
    snprintf(table->cells[r++][c], MAX_CELL, "%zu", one->count);
    table->rows = r;
}

/* Print the table of one batch's series, whole calls or stages, if there are any. */
static void print_batch(FILE *file, const bench_run *run, const bench_figures *figures, int batch,
                        bool whole, grid *table)
{
    int count = 0;
    *table = (grid){.columns = 1};
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < run->series.count; i++) {
            const bench_series *one = &run->series.of[i];
            if (one->batch != batch || !strcmp(one->stage, "whole") != whole ||
                table->columns == MAX_COLUMNS)
                continue;
            if (pass)
                add_column(table, one, &figures->summaries[i], count <= WITH_INTERVALS);
            else
                count++;
        }
    if (!count)
        return;
    const char *marked = bench_is_stable(&run->verdict) ? "" : " - UNSTABLE, see below";
    if (whole) {
        print_text(file, bench_base(run->path));
        fprintf(file, " on %s, batch %d%s\n", run->subjects[0].session->provider, batch, marked);
    } else {
        fprintf(file, "stages of %s, batch %d%s\n", run->subjects[0].name, batch, marked);
    }
    draw(file, table);
}

/* Hold the model against what ran in turns with it. */
static bool print_ratios(FILE *file, const bench_run *run, int batch)
{
    const bench_series *first = NULL;
    bool well = true;
    for (size_t i = 0; i < run->series.count && well; i++) {
        const bench_series *one = &run->series.of[i];
        bench_difference found;
        if (one->batch != batch || strcmp(one->stage, "whole"))
            continue;
        if (!first) {
            first = one;
        } else if (strcmp(one->name, first->name)) { /* else it is itself, under load */
            well = bench_compare(one->samples_ns, one->count, first->samples_ns, first->count,
                                 &found);
            if (!well)
                break;
            fprintf(file, "p50 of %s / ", first->name);
            print_text(file, one->name);
            fprintf(file, ": %.4f (%.4f-%.4f)\n", found.ratio, found.low, found.high);
        }
    }
    return well;
}

/* --------------------------------------------------------------------------------- lines -- */

static void print_mlperf(FILE *file, const bench_figures *figures)
{
    const bench_early_stopping *found = &figures->mlperf;
    char shown[32] = "none", queries[BENCH_RATE_TEXT], over[BENCH_RATE_TEXT];
    if (found->known) {
        number((double)found->estimate_ns / 1e6, shown, sizeof shown - 4);
        strcat(shown, " ms");
    }
    bench_count_text((double)found->queries, queries);
    bench_count_text((double)found->over_latency, over);
    fprintf(file,
            "MLPerf single stream: %s, the early-stopping estimate of p90 at 99 %%; q = %s, t = "
            "%s, %.1f s\n",
            shown, queries, over, figures->mlperf_duration_s);
    if (*figures->mlperf_reason)
        fprintf(file, "not valid by MLPerf: %s\n", figures->mlperf_reason);
}

static void print_cold(FILE *file, const bench_run *run, const bench_figures *figures)
{
    fprintf(file, "cold start: %.0f ms to the first label (each:", figures->cold_p50_ms);
    for (int64_t i = 0; i < run->plan.cold && i < 10; i++)
        fprintf(file, "%s %.0f", i ? "," : "", run->cold_ms[i]);
    fputs(")\n", file);
}

/* Write bytes as megabytes with commas and one digit: 1,234.5. */
static void megabytes(int64_t bytes, char text[64])
{
    char whole[BENCH_RATE_TEXT];
    long long tenths = llround((double)bytes / 1e5);
    bench_count_text((double)(tenths / 10), whole);
    snprintf(text, 64, "%s.%lld MB", whole, tenths % 10);
}

static void print_memory(FILE *file, const bench_memory *memory)
{
    char before[64], opened[64], peak[64];
    if (memory->before_bytes < 0 || memory->open_bytes < 0)
        return;
    megabytes(memory->before_bytes, before);
    megabytes(memory->open_bytes, opened);
    fprintf(file, "memory: %s before, %s with the model open", before, opened);
    if (memory->peak_bytes >= 0) {
        megabytes(memory->peak_bytes, peak);
        fprintf(file, ", %s at most once it ran", peak);
    }
    fputs("; callers and sensors came later\n", file);
}

bool bench_tables_print(FILE *file, const bench_run *run, const bench_figures *figures)
{
    grid *table = eip_allocate(1, sizeof *table);
    bool well = table != NULL;
    for (int i = 0; i < run->plan.batches.count && well; i++) {
        int batch = run->plan.batches.of[i];
        print_batch(file, run, figures, batch, true, table);
        print_batch(file, run, figures, batch, false, table);
        well = print_ratios(file, run, batch);
    }
    free(table);
    if (run->plan.mlperf)
        print_mlperf(file, figures);
    if (run->cold_ms)
        print_cold(file, run, figures);
    print_memory(file, &run->memory);
    if (figures->has_energy)
        fprintf(file, "energy: %.3g mJ an image, %.3g W (%s)\n",
                figures->energy.joules_per_image * 1e3, figures->energy.mean_power_w,
                figures->energy.source);
    return well;
}
