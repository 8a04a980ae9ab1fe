#include "runner/cli/arguments.h"

#include <stdbool.h>
#include <string.h>

static bool takes_value(const GOptionEntry *entry)
{
    return entry->arg != G_OPTION_ARG_NONE && !(entry->flags & G_OPTION_FLAG_OPTIONAL_ARG);
}

/* Whether WORD ("--name" or "--name=value") is one of ENTRIES; *WANTS: its value follows. */
static bool is_long(const GOptionEntry *entries, const char *word, bool *wants)
{
    size_t length = strcspn(word + 2, "=");

    *wants = false;
    if (strcmp(word, "--help") == 0)
        return true;
    for (; entries->long_name; entries++)
        if (strlen(entries->long_name) == length &&
            strncmp(entries->long_name, word + 2, length) == 0) {
            *wants = !word[2 + length] && takes_value(entries);
            return true;
        }
    return false;
}

/* The same of "-a" or "-abc": all of its letters must be known. */
static bool is_short(const GOptionEntry *entries, const char *word, bool *wants)
{
    *wants = false;
    for (const char *letter = word + 1; *letter; letter++) {
        const GOptionEntry *entry = entries;

        while (entry->long_name && entry->short_name != *letter)
            entry++;
        if (!entry->long_name && *letter != 'h')
            return false;
        *wants = entry->long_name && takes_value(entry);
    }
    return true;
}

void arguments_split(const GOptionEntry *entries, int argc, char **argv, GPtrArray *options,
                     GPtrArray *rest)
{
    int i = 1;

    for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
        bool dashes = g_str_has_prefix(argv[i], "--"), wants = false;
        bool known =
            argv[i][0] == '-' && argv[i][1] &&
            (dashes ? is_long(entries, argv[i], &wants) : is_short(entries, argv[i], &wants));

        g_ptr_array_add(known ? options : rest, argv[i]);
        if (known && wants && i + 1 < argc)
            g_ptr_array_add(options, argv[++i]);
    }
    for (i++; i < argc; i++)
        g_ptr_array_add(rest, argv[i]);
}
