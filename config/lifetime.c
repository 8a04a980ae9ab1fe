#include "config/lifetime.h"

#include "config/schema.h"
#include "config/units.h"

#include <signal.h>
#include <string.h>

enum { NODES_MAX = 4096, ATTEMPTS_MAX = 1000000 };

int signal_parse(const char *name)
{
    guint64 number;

    if (g_ascii_string_to_unsigned(name, 10, 1, NSIG - 1, &number, NULL))
        return number == SIGKILL || number == SIGSTOP ? 0 : (int)number;
    if (g_ascii_strncasecmp(name, "SIG", 3) == 0)
        name += 3;
    for (int i = 1; i < NSIG; i++)
        if (i != SIGKILL && i != SIGSTOP && sigabbrev_np(i) &&
            g_ascii_strcasecmp(name, sigabbrev_np(i)) == 0)
            return i;
    return 0;
}

char *signal_format(int number)
{
    const char *name = sigabbrev_np(number);

    return name ? g_strdup(name) : g_strdup_printf("%d", number);
}

static bool read_count(const char *file, const struct yaml_node *map, const char *key, unsigned max,
                       unsigned *count, GError **error)
{
    const struct yaml_node *node = yaml_node_get(map, key);
    const char *text = node && node->kind == YAML_SCALAR && node->text ? node->text : "";
    guint64 number;

    if (!node)
        return true;
    if (!g_ascii_string_to_unsigned(text, 10, 1, max, &number, NULL))
        return schema_error(file, node, error, "\"%s\" must be a whole number from 1 to %u", key,
                            max);
    *count = (unsigned)number;
    return true;
}

static bool read_retry(const char *file, const struct yaml_node *map, struct lifetime *to,
                       GError **error)
{
    static const char *const keys[] = {"attempts", "duration", NULL};
    const struct yaml_node *retry = yaml_node_get(map, "retry");
    g_autofree char *duration = NULL;

    if (!retry)
        return true;
    if (retry->kind != YAML_MAP)
        return schema_error(file, retry, error,
                            "\"retry\" must be a map with \"attempts\" or \"duration\"");
    if (!schema_check_keys(file, retry, keys, "\"retry\"", error) ||
        !read_count(file, retry, "attempts", ATTEMPTS_MAX, &to->attempts, error) ||
        !schema_text(file, retry, "duration", &duration, error))
        return false;
    return !duration || (duration_parse(duration, &to->duration_ms) && to->duration_ms > 0) ||
           schema_error(file, yaml_node_get(retry, "duration"), error,
                        "\"duration\" must be a time such as 90m, 12h or 2d, not %s", duration);
}

bool lifetime_read(const char *file, const struct yaml_node *map, struct lifetime *lifetime,
                   GError **error)
{
    g_autofree char *name = NULL;

    if (!read_count(file, map, "nodes", NODES_MAX, &lifetime->nodes, error) ||
        !read_retry(file, map, lifetime, error) ||
        !schema_text(file, map, "stop_signal", &name, error))
        return false;
    lifetime->stop_signal = name ? signal_parse(name) : 0;
    return !name || lifetime->stop_signal ||
           schema_error(file, yaml_node_get(map, "stop_signal"), error,
                        "\"stop_signal\" must be a signal that can be caught, such as USR1, not %s",
                        name);
}
