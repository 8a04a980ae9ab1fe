#include "config/units.h"

#include <glib.h>
#include <string.h>

static const char *const size_units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};

/* How many times 1024 the unit stands for; -1: not a unit. */
static int unit_power(const char *unit)
{
    static const char letters[] = "bkmgtp";
    const char *letter;
    char first = g_ascii_tolower(*unit);

    if (!first)
        return 0;
    letter = strchr(letters, first);
    if (!letter)
        return -1;
    if (letter == letters)
        return unit[1] ? -1 : 0;
    unit++;
    if (!*unit || g_ascii_strcasecmp(unit, "b") == 0 || g_ascii_strcasecmp(unit, "ib") == 0)
        return letter - letters;
    return -1;
}

bool size_parse(const char *text, uint64_t *bytes)
{
    char *end;
    double value;
    int power;

    if (!g_ascii_isdigit(*text))
        return false;
    value = g_ascii_strtod(text, &end);
    if (end != text + strspn(text, "0123456789."))
        return false; /* 0x10 and 1e3 are numbers to strtod only */
    while (*end == ' ')
        end++;
    power = unit_power(end);
    if (power < 0)
        return false;
    while (power--)
        value *= 1024;
    if (!(value >= 0 && value < 9e18))
        return false;
    *bytes = (uint64_t)value;
    return true;
}

char *size_format(uint64_t bytes)
{
    double value = bytes;
    unsigned unit = 0;

    while (value >= 1023.95 && unit + 1 < G_N_ELEMENTS(size_units)) {
        value /= 1024;
        unit++;
    }
    if (unit == 0)
        return g_strdup_printf("%" G_GUINT64_FORMAT "B", bytes);
    return g_strdup_printf("%.1f%s", value, size_units[unit]);
}

bool duration_parse(const char *text, int64_t *ms)
{
    static const struct {
        char letter;
        int64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 604800}};
    char *end;
    guint64 value;

    if (!g_ascii_isdigit(*text))
        return false;
    value = g_ascii_strtoull(text, &end, 10);
    if (value > 1000000 || !*end || end[1])
        return false;
    for (unsigned i = 0; i < G_N_ELEMENTS(units); i++)
        if (units[i].letter == *end) {
            *ms = (int64_t)value * units[i].seconds * 1000;
            return true;
        }
    return false;
}

char *ago_format(int64_t then_ms, int64_t now_ms)
{
    int64_t seconds = (now_ms - then_ms) / 1000;

    if (!then_ms)
        return g_strdup("");
    if (seconds < 5)
        return g_strdup("now");
    if (seconds < 60)
        return g_strdup_printf("%d sec ago", (int)seconds);
    if (seconds < 3600)
        return g_strdup_printf("%d min ago", (int)(seconds / 60));
    if (seconds < 86400)
        return g_strdup_printf("%d hour%s ago", (int)(seconds / 3600), seconds < 7200 ? "" : "s");
    if (seconds < 2 * 86400)
        return g_strdup("yesterday");
    return g_strdup_printf("%d days ago", (int)(seconds / 86400));
}
