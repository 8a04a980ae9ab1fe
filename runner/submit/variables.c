#include "runner/submit/variables.h"
#include "config/error.h"
#include "runner/secrets/secrets.h"
#include <string.h>

#define SAFE "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@%+=:,./-"

/* Where in a script a byte stands, as far as quoting goes. */
struct place {
    enum { PLAIN, SINGLE, DOUBLE, DOLLAR_SINGLE, COMMENT } in;
    bool escaped;       /* by a \ before */
    bool here_document; /* perhaps: a << came before */
    char before, before_that;
};

/* The place behind C. */
static void advance(struct place *place, char c)
{
    bool escaped = place->escaped;

    if (place->in == PLAIN && c != '<' && place->before == '<' && place->before_that == '<')
        place->here_document = true;
    place->escaped = !escaped && c == '\\' && place->in != SINGLE && place->in != COMMENT;
    if (escaped) {
    } else if (place->in == PLAIN && c == '\'') {
        place->in = place->before == '$' ? DOLLAR_SINGLE : SINGLE;
    } else if (place->in == PLAIN && c == '"') {
        place->in = DOUBLE;
    } else if (place->in == PLAIN && c == '#' && strchr(" \t\n;&|()", place->before)) {
        place->in = COMMENT; /* 0, the beginning, is found by strchr too */
    } else if ((place->in == COMMENT && c == '\n') || (place->in == DOUBLE && c == '"') ||
               ((place->in == SINGLE || place->in == DOLLAR_SINGLE) && c == '\'')) {
        place->in = PLAIN;
    }
    if (c == '<' && place->before == '<' && place->before_that == '<')
        place->before = 0; /* <<< is no here-document */
    place->before_that = place->before;
    place->before = c;
}

static void append_args(GString *to, char **args)
{
    for (char **arg = args; arg && *arg; arg++) {
        g_autofree char *quoted =
            **arg && !(*arg)[strspn(*arg, SAFE)] ? g_strdup(*arg) : g_shell_quote(*arg);

        g_string_append_printf(to, "%s%s", arg == args ? "" : " ", quoted);
    }
}

/* For the shell: the environment's variable, as one word. */
static bool append_reference(GString *to, const struct place *place, const char *name,
                             GError **error)
{
    static const char *const forms[] = {"\"${%s}\"", "'\"${%s}\"'", "${%s}", "'\"${%s}\"$'", "%s"};
    g_auto(GStrv) around = g_strsplit(forms[place->in], "%s", 2);

    if (place->here_document)
        return error_set(error, EINVAL,
                         "a secret behind << would not be replaced in every here-document: write "
                         "${%s} there, without quotes around the document's end mark",
                         name);
    g_string_append_printf(to, "%s%s%s", around[0], name, around[1]);
    return true;
}

static bool append_secret(struct variables *v, GString *to, const struct place *place,
                          const char *name, GError **error)
{
    const char *value = place ? "" : secrets_value(v->secrets, name);

    if (!secret_name_check(name, error))
        return false;
    if (v->used)
        g_ptr_array_add(v->used, g_strdup(name));
    if (place)
        return append_reference(to, place, name, error);
    if (!value && v->secrets)
        return error_set(error, ENOENT, "there is no secret %s: dstack secrets add %s", name, name);
    g_string_append(to, value ? value : "");
    return true;
}

/* NAME, as it stands between the braces, replaced at the end of TO. PLACE NULL: for a value. */
static bool append_variable(struct variables *v, GString *to, const struct place *place,
                            const char *name, GError **error)
{
    if (g_str_has_prefix(name, "secrets."))
        return append_secret(v, to, place, name + strlen("secrets."), error);
    if (strcmp(name, "run.name") == 0) {
        g_string_append(to, v->run_name);
    } else if (strcmp(name, "run.args") == 0) {
        append_args(to, v->args);
        v->uses_args = true;
    } else {
        return error_set(error, EINVAL,
                         "unknown variable \"%s\"; there are run.name, run.args and secrets.NAME, "
                         "and $${{ is a plain ${{",
                         name);
    }
    return true;
}

static char *replace(struct variables *v, const char *text, bool shell, GError **error)
{
    g_autoptr(GString) to = g_string_new(NULL);
    struct place place = {0};

    while (*text) {
        g_autofree char *name = NULL;
        const char *end;

        if (strncmp(text, "${{", 3) != 0) {
            g_string_append_c(to, *text);
            advance(&place, *text);
            text += text[0] == '$' && text[1] == '$' ? 2 : 1;
            continue;
        }
        end = strstr(text, "}}");
        if (!end)
            return error_set(error, EINVAL, "\"%.20s\" has no }}", text), NULL;
        name = g_strstrip(g_strndup(text + 3, (gsize)(end - text - 3)));
        if (!append_variable(v, to, shell ? &place : NULL, name, error))
            return NULL;
        place.before = 'x'; /* whatever it was replaced by: it ends no << and begins no comment */
        text = end + 2;
    }
    return g_string_free(g_steal_pointer(&to), FALSE);
}

char *variables_for_shell(struct variables *variables, const char *text, GError **error)
{
    return replace(variables, text, true, error);
}

char *variables_for_value(struct variables *variables, const char *text, GError **error)
{
    return replace(variables, text, false, error);
}

char *variables_escape(const char *text)
{
    g_autoptr(GString) escaped = g_string_new(text);

    g_string_replace(escaped, "$", "$$", 0);
    return g_string_free(g_steal_pointer(&escaped), FALSE);
}
