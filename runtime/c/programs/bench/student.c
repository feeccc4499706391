/* SPDX-License-Identifier: Apache-2.0 */
/* The normal and Student's distribution. */
#include "statistics.h"

#include <math.h>

#define SQRT_2 1.41421356237309504880

double bench_normal_tail(double z)
{
    return 0.5 * erfc(z / SQRT_2);
}

/* lgamma() writes to a global, which threads would share. */
static double log_gamma(double x)
{
    int sign;
    return lgamma_r(x, &sign);
}

/* Return the regularised incomplete beta function I_x(a, b), by its continued fraction (Abramowitz
 * and Stegun 26.5.8), evaluated from its begin on (Lentz 1976). */
static double incomplete_beta(double a, double b, double x)
{
    if (x <= 0 || x >= 1)
        return x <= 0 ? 0.0 : 1.0;
    if (x > (a + 1) / (a + b + 2))
        return 1 - incomplete_beta(b, a, 1 - x);
    double front = exp(log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * log(x) +
                       b * log1p(-x));
    double c = 1, d = 1 / (1 - (a + b) * x / (a + 1)), fraction = d;
    for (int m = 1; m < 10000; m++) {
        const double steps[2] = {
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        };
        for (int i = 0; i < 2; i++) {
            d = 1 / (1 + steps[i] * d);
            c = 1 + steps[i] / c;
            fraction *= c * d;
        }
        if (fabs(c * d - 1) < 1e-14)
            break;
    }
    return front * fraction / a;
}

double bench_student_tail(double t, double freedom)
{
    if (freedom > 1e6)
        return bench_normal_tail(t);
    return 0.5 * incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t));
}

double bench_student_quantile(double probability, double freedom)
{
    if (probability < 0.5)
        return -bench_student_quantile(1 - probability, freedom);
    double low = 0, high = 2;
    while (bench_student_tail(high, freedom) > 1 - probability)
        high *= 2;
    for (int i = 0; i < 60; i++) {
        double middle = (low + high) / 2;
        if (bench_student_tail(middle, freedom) > 1 - probability)
            low = middle;
        else
            high = middle;
    }
    return high;
}
