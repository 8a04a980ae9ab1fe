/* The layout against a flat array of bytes: random edits from a printed seed. */
#include "fusefs/layout.h"

#include <criterion/criterion.h>
#include <string.h>

#define SIZE_MAX_BYTES 5000

static struct budget *budget;

/* Every byte of LAYOUT that is in memory or a hole is what MODEL says; the rest is in the object.
 */
static void check(const struct layout *layout, const uint8_t *model, const uint8_t *object,
                  uint64_t size, unsigned seed)
{
    uint64_t at = 0;

    cr_assert_eq(layout_size(layout), size, "seed %u", seed);
    for (unsigned i = 0; i < layout_count(layout); i++) {
        const struct extent *extent = layout_at(layout, i);

        cr_assert_eq(extent->start, at, "seed %u", seed);
        cr_assert_gt(extent->end, extent->start, "seed %u", seed);
        for (; at < extent->end; at++) {
            uint8_t byte = 0;

            if (extent->buffer)
                byte = extent->buffer->data[extent->buffer_offset + (at - extent->start)];
            else if (extent->in_object)
                byte = object[at];
            cr_assert_eq(byte, model[at], "seed %u: byte %" G_GUINT64_FORMAT, seed, at);
        }
    }
}

static void write_bytes(struct layout *layout, uint8_t *model, uint64_t *size, GRand *rand)
{
    uint64_t offset = g_rand_int_range(rand, 0, SIZE_MAX_BYTES - 600);
    uint64_t length = g_rand_int_range(rand, 1, 600);
    uint8_t data[600];

    for (unsigned i = 0; i < length; i++)
        data[i] = g_rand_int(rand);
    if (!layout_write_in_place(layout, offset, data, length)) {
        struct buffer *buffer = buffer_try_new(budget, 4096, BUDGET_DIRTY);

        memcpy(buffer->data, data, length);
        buffer->filled = length;
        layout_put(layout, offset, length, buffer, 0);
        buffer_unref(buffer);
    }
    memcpy(model + offset, data, length);
    *size = MAX(*size, offset + length);
}

static void resize(struct layout *layout, uint8_t *model, uint64_t *size, GRand *rand)
{
    uint64_t to = g_rand_int_range(rand, 0, SIZE_MAX_BYTES);

    layout_resize(layout, to);
    if (to < *size)
        memset(model + to, 0, *size - to);
    *size = to;
}

/* Saves a frozen copy while more edits happen, as a publish does. */
static void save(struct layout *layout, uint8_t *model, uint8_t *object, uint64_t *size,
                 GRand *rand)
{
    struct layout snapshot;
    uint8_t saved[SIZE_MAX_BYTES];

    memcpy(saved, model, sizeof(saved));
    layout_copy(layout, 0, UINT64_MAX, &snapshot);
    layout_freeze(&snapshot);
    for (int i = g_rand_int_range(rand, 0, 4); i > 0; i--)
        write_bytes(layout, model, size, rand);
    if (g_rand_int_range(rand, 0, 4) == 0)
        resize(layout, model, size, rand);
    layout_mark_saved(layout, &snapshot, g_rand_boolean(rand));
    memcpy(object, saved, sizeof(saved));
    layout_thaw(&snapshot);
    layout_clear(&snapshot);
}

static void run(unsigned seed)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    uint8_t model[SIZE_MAX_BYTES] = {0}, object[SIZE_MAX_BYTES] = {0};
    struct layout layout;
    uint64_t size = 0;

    layout_init(&layout);
    for (int step = 0; step < 200; step++) {
        switch (g_rand_int_range(rand, 0, 6)) {
        case 0:
            resize(&layout, model, &size, rand);
            break;
        case 1:
            save(&layout, model, object, &size, rand);
            break;
        case 2:
            layout_drop_clean(&layout);
            break;
        default:
            write_bytes(&layout, model, &size, rand);
        }
        check(&layout, model, object, size, seed);
    }
    layout_clear(&layout);
}

Test(layout, random_edits_match_a_flat_array)
{
    budget = budget_new(64 << 20);
    for (unsigned seed = 1; seed <= 200; seed++)
        run(seed);
    cr_assert_eq(budget_used_bytes(budget), 0);
    budget_free(budget);
}

Test(layout, a_byte_written_during_a_save_stays_dirty)
{
    struct layout layout, snapshot;
    struct buffer *buffer;

    budget = budget_new(64 << 20);
    buffer = buffer_try_new(budget, 100, BUDGET_DIRTY);
    memset(buffer->data, 'a', 100);
    buffer->filled = 100;
    layout_init(&layout);
    layout_put(&layout, 0, 100, buffer, 0);
    buffer_unref(buffer);
    layout_copy(&layout, 0, UINT64_MAX, &snapshot);
    layout_freeze(&snapshot);
    cr_assert_not(layout_write_in_place(&layout, 50, "x", 1), "frozen bytes were overwritten");
    cr_assert(layout_write_in_place(&layout, 100, "b", 1), "an append is allowed meanwhile");
    layout_mark_saved(&layout, &snapshot, false);
    layout_thaw(&snapshot);
    layout_clear(&snapshot);
    cr_assert_not(layout_is_saved(&layout));
    cr_assert_eq(layout_dirty_bytes(&layout), 1);
    layout_clear(&layout);
    budget_free(budget);
}

Test(budget, lanes_leave_room_for_each_other)
{
    struct buffer *held[16];
    unsigned count = 0;

    budget = budget_new(16 << 20);
    while ((held[count] = buffer_try_new(budget, BUFFER_MAX, BUDGET_AHEAD)))
        count++;
    cr_assert_eq(count, 8);
    while ((held[count] = buffer_try_new(budget, BUFFER_MAX, BUDGET_DIRTY)))
        count++;
    cr_assert_eq(count, 12);
    cr_assert_null(buffer_wait_new(budget, BUFFER_MAX, BUDGET_DIRTY, 10));
    held[count] = buffer_try_new(budget, BUFFER_MAX, BUDGET_WANTED);
    cr_assert_not_null(held[count++]);
    cr_assert_eq(budget_peak_bytes(budget), 13u << 20);
    while (count)
        buffer_unref(held[--count]);
    cr_assert_eq(budget_used_bytes(budget), 0);
    budget_free(budget);
}
