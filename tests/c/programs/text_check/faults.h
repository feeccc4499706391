/* SPDX-License-Identifier: Apache-2.0 */
/* Lets allocations and calls of the kernel fail, of what is linked with --wrap. */
#ifndef FAULTS_H
#define FAULTS_H

#include <stddef.h>

extern int faults_failed;    /* whether an allocation failed since faults_begin */
extern char faults_called[]; /* the names of the calls since then, in their order */

/* What the next part from faults_begin to faults_end meets with: */
void faults_fail(long at);                                       /* this allocation, from 1 */
int faults_of_call(const char *name, int number, int count);    /* 0: no such call */
void faults_short(size_t bytes);                                 /* the most of a read or write */

void faults_begin(void);
void faults_end(void);

#endif
