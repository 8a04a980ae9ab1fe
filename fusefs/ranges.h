/* A set of byte ranges [start, end): sorted, and those that touch are one.
 *
 * threads: none of its own; the inode's lock guards it.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define RANGES_MAX 1024 /* with one more it forgets all it has */

/* All zeros: none. ranges_clear gives their memory back. */
struct ranges {
    GArray *items; /* struct range; NULL: none */
};

void ranges_clear(struct ranges *ranges);

void ranges_add(struct ranges *ranges, uint64_t start, uint64_t end);

/* Whether one of them holds all of [START, END). */
bool ranges_hold(const struct ranges *ranges, uint64_t start, uint64_t end);

/* The first byte at or above AT that is in none of LEAST bytes or more, and in *END how far it goes
 * on so: UINT64_MAX without an end. */
uint64_t ranges_gap_above(const struct ranges *ranges, uint64_t at, uint64_t least, uint64_t *end);
/* The end of the last bytes below AT that are in none, 0: there are none; and in *START where they
 * begin. */
uint64_t ranges_gap_below(const struct ranges *ranges, uint64_t at, uint64_t least,
                          uint64_t *start);
