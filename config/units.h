/* Sizes and times as people write and read them.
 *
 * shape: "512", "64KB", "16GB", "7.5MiB": KB, MB, GB, TB and KiB, MiB, GiB, TiB all count in 1024s,
 *        as the original did; case does not matter. Durations: a number and s, m, h, d or w.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

bool size_parse(const char *text, uint64_t *bytes);
char *size_format(uint64_t bytes); /* "12B", "9.8KiB", "7.5MiB" */

bool duration_parse(const char *text, int64_t *ms);
char *ago_format(int64_t then_ms, int64_t now_ms); /* "now", "12 sec ago", "yesterday" */
