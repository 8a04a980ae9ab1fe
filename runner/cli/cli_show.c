/* What people see: columns, colours, and one line that says what is wrong. */
#include "runner/cli/cli.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define RED    "\033[31m"
#define GREEN  "\033[32m"
#define YELLOW "\033[33m"
#define BLUE   "\033[34m"
#define PLAIN  "\033[0m"

/* Names and server's words may hold anything; a terminal is not to obey it. */
char *cli_printable(const char *text)
{
    char *valid = g_utf8_make_valid(text, -1);

    for (char *c = valid; *c; c++) {
        unsigned char byte = (unsigned char)c[0], next = (unsigned char)c[1];

        if (byte == 0xc2 && next < 0xa0) /* U+0080 … U+009F: control characters, too */
            c[0] = c[1] = '?';
        else if (byte < 32 || byte == 127)
            *c = '?';
    }
    return valid;
}

unsigned cli_width(const char *text)
{
    unsigned width = 0;

    for (; *text; text = g_utf8_next_char(text)) {
        gunichar c = g_utf8_get_char(text);

        width += g_unichar_iszerowidth(c) ? 0 : g_unichar_iswide(c) ? 2 : 1;
    }
    return width;
}

bool cli_is_coloured(int fd)
{
    const char *no = g_getenv("NO_COLOR"), *terminal = g_getenv("TERM");

    return (!no || !*no) && terminal && strcmp(terminal, "dumb") != 0 && isatty(fd);
}

void cli_say(const char *who, const char *text)
{
    bool coloured = cli_is_coloured(STDERR_FILENO);
    g_autofree char *line = cli_printable(text);

    fprintf(stderr, "%s%s:%s %s\n", coloured ? RED : "", who, coloured ? PLAIN : "", line);
}

void cli_table_init(struct cli_table *table, unsigned columns)
{
    table->columns = columns;
    table->cells = g_ptr_array_new_with_free_func(g_free);
    table->colours = g_ptr_array_new();
}

static void add_cell(struct cli_table *table, const char *cell, const char *colour)
{
    g_ptr_array_add(table->cells, cli_printable(cell));
    g_ptr_array_add(table->colours, (char *)colour);
}

void cli_table_add(struct cli_table *table, const char *cell)
{
    add_cell(table, cell, NULL);
}

void cli_table_add_status(struct cli_table *table, enum run_status status)
{
    const char *colour = status == RUN_DONE                               ? GREEN
                         : status == RUN_FAILED                           ? RED
                         : status == RUN_STOPPED || status == RUN_ABORTED ? YELLOW
                                                                          : BLUE;

    add_cell(table, run_status_name(status), colour);
}

void cli_table_print(struct cli_table *table)
{
    g_autofree unsigned *width = g_new0(unsigned, table->columns);
    bool coloured = cli_is_coloured(STDOUT_FILENO);

    for (guint i = 0; i < table->cells->len; i++) {
        unsigned here = cli_width(table->cells->pdata[i]);

        width[i % table->columns] = MAX(width[i % table->columns], here);
    }
    for (guint i = 0; i < table->cells->len; i++) {
        const char *colour = coloured ? table->colours->pdata[i] : NULL;
        unsigned column = i % table->columns;
        const char *cell = table->cells->pdata[i];
        bool last = column + 1 == table->columns;

        printf("%s%s%s", colour ? colour : "", cell, colour ? PLAIN : "");
        if (last)
            putchar('\n');
        else
            printf("%*s", (int)(width[column] - cli_width(cell) + 2), "");
    }
    g_clear_pointer(&table->cells, g_ptr_array_unref);
    g_clear_pointer(&table->colours, g_ptr_array_unref);
}
