/* A set of ranges against a byte for each place. */
#include "fusefs/ranges.h"

#include <criterion/criterion.h>

#define SIZE 400

static struct ranges ranges;

static void tear_down(void)
{
    ranges_clear(&ranges);
}

TestSuite(ranges, .fini = tear_down, .timeout = 20);

/* The run of places in which HELD is VALUE, from AT on in steps of STEP. */
static unsigned run_of(const bool *held, unsigned at, int step, bool value)
{
    unsigned count = 0;

    for (int i = (int)at; i >= 0 && i < SIZE && held[i] == value; i += step)
        count++;
    return count;
}

/* HELD without the runs that are shorter than LEAST. */
static void drop_short(const bool *held, unsigned least, bool *kept)
{
    memset(kept, false, SIZE);
    for (unsigned at = 0; at < SIZE; at++) {
        unsigned run = run_of(held, at, 1, true);

        if (run >= least)
            memset(kept + at, true, run);
        at += run;
    }
}

static void expect_same(const bool *held, unsigned least, unsigned at)
{
    uint64_t end, start, above = ranges_gap_above(&ranges, at, least, &end);
    uint64_t below = ranges_gap_below(&ranges, at, least, &start);
    unsigned gap = at + run_of(held, at, 1, true);

    cr_assert_eq(above, gap, "at %u", at);
    if (gap + run_of(held, gap, 1, false) < SIZE)
        cr_assert_eq(end, gap + run_of(held, gap, 1, false), "at %u", at);
    else
        cr_assert_eq(end, UINT64_MAX);
    gap = at - (at ? run_of(held, at - 1, -1, true) : 0);
    cr_assert_eq(below, gap, "at %u", at);
    cr_assert_eq(start, gap - (gap ? run_of(held, gap - 1, -1, false) : 0), "at %u", at);
}

Test(ranges, are_what_was_added_in_any_order)
{
    GRand *random = g_rand_new_with_seed(3);

    for (unsigned round = 0; round < 100; round++) {
        bool held[SIZE] = {false};

        ranges_clear(&ranges);
        for (unsigned i = 0; i < 20; i++) {
            unsigned start = (unsigned)g_rand_int_range(random, 0, SIZE);
            unsigned size = (unsigned)g_rand_int_range(random, 0, 20);
            unsigned end = MIN(SIZE, start + size);

            ranges_add(&ranges, start, end);
            memset(held + start, true, end - start);
            for (unsigned least = 1; least < 30; least += 9) {
                bool kept[SIZE];

                drop_short(held, least, kept);
                for (unsigned at = 0; at < SIZE; at++)
                    expect_same(kept, least, at);
            }
            cr_assert(start == end || ranges_hold(&ranges, start, end));
            end = MIN(SIZE, start + 30);
            cr_assert_eq(ranges_hold(&ranges, start, end),
                         run_of(held, start, 1, true) >= end - start);
        }
    }
    g_rand_free(random);
}

Test(ranges, are_forgotten_when_they_are_too_many)
{
    for (unsigned i = 0; i < RANGES_MAX; i++)
        ranges_add(&ranges, 10 * i, 10 * i + 5);
    cr_assert(ranges_hold(&ranges, 0, 5));
    ranges_add(&ranges, 5, 10); /* joins two */
    cr_assert(ranges_hold(&ranges, 0, 15));
    ranges_add(&ranges, 7, 8);
    ranges_add(&ranges, 1000000, 1000001);
    cr_assert(ranges_hold(&ranges, 0, 15));
    ranges_add(&ranges, 2000000, 2000001);
    cr_assert_not(ranges_hold(&ranges, 0, 15));
    cr_assert(ranges_hold(&ranges, 2000000, 2000001));
}
