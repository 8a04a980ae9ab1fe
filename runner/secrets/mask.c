#include "runner/secrets/mask.h"
#include "runner/secrets/secret_box.h"
#include "runner/secrets/secrets.h"
#include <stdbool.h>
#include <string.h>

static const char SHOWN[] = "***";

struct mask {
    GPtrArray *words; /* char*, the longest first: of two that begin alike it is the one meant */
    GByteArray *held;
};

static int compare_lengths(const void *a, const void *b)
{
    size_t one = strlen(*(char *const *)a), two = strlen(*(char *const *)b);

    return one < two ? 1 : one > two ? -1 : 0;
}

static void free_word(gpointer word)
{
    secret_free(word);
}

struct mask *mask_new(const GPtrArray *secrets)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new_with_free_func(free_word);
    struct mask *mask;

    for (guint i = 0; i < secrets->len; i++) {
        g_auto(GStrv) lines =
            g_strsplit_set(((struct secret *)secrets->pdata[i])->value, "\r\n", -1);

        for (char **line = lines; *line; line++)
            if (strlen(*line) >= MASK_LEAST)
                g_ptr_array_add(words, g_strdup(*line));
    }
    if (words->len == 0)
        return NULL;
    g_ptr_array_sort(words, compare_lengths);
    mask = g_new0(struct mask, 1);
    mask->words = g_steal_pointer(&words);
    mask->held = g_byte_array_new();
    return mask;
}

void mask_free(struct mask *mask)
{
    if (!mask)
        return;
    g_ptr_array_unref(mask->words);
    g_byte_array_unref(mask->held);
    g_free(mask);
}

/* The first word in DATA, its place in *AT; NULL: none. */
static const char *find_first(const struct mask *mask, const guint8 *data, size_t size, size_t *at)
{
    const char *first = NULL;

    for (guint i = 0; i < mask->words->len; i++) {
        const char *word = mask->words->pdata[i];
        const guint8 *found = memmem(data, size, word, strlen(word));

        if (found && (!first || (size_t)(found - data) < *at)) {
            first = word;
            *at = (size_t)(found - data);
        }
    }
    return first;
}

/* How many bytes at the end of DATA begin a word that may go on. */
static size_t begun(const struct mask *mask, const guint8 *data, size_t size)
{
    size_t most = 0;

    for (guint i = 0; i < mask->words->len; i++) {
        const char *word = mask->words->pdata[i];

        for (size_t length = MIN(strlen(word) - 1, size); length > most; length--)
            if (memcmp(data + size - length, word, length) == 0)
                most = length;
    }
    return most;
}

/* Everything but the last KEEP bytes of what is held, masked. A word that begins within those may
 * be the beginning of a longer one. */
static void let_go(struct mask *mask, bool all, GByteArray *out)
{
    const guint8 *rest = mask->held->data;
    size_t left = mask->held->len, at = 0, keep = all ? 0 : begun(mask, rest, left);
    const char *word;

    while ((word = find_first(mask, rest, left, &at)) && at < left - keep) {
        g_byte_array_append(out, rest, (guint)at);
        g_byte_array_append(out, (const guint8 *)SHOWN, sizeof SHOWN - 1);
        rest += at + strlen(word);
        left -= at + strlen(word);
        keep = all ? 0 : begun(mask, rest, left);
    }
    g_byte_array_append(out, rest, (guint)(left - keep));
    g_byte_array_remove_range(mask->held, 0, (guint)(mask->held->len - keep));
}

void mask_add(struct mask *mask, const char *data, size_t size, GByteArray *out)
{
    g_byte_array_append(mask->held, (const guint8 *)data, (guint)size);
    let_go(mask, false, out);
}

void mask_end(struct mask *mask, GByteArray *out)
{
    let_go(mask, true, out);
}
