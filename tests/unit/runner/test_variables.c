/* Variables in commands. */
#include "config/error.h"
#include "runner/variables.h"
#include <criterion/criterion.h>
#include <string.h>

static void gives(const char *text, const char *expected)
{
    char *args[] = {"--lr=0.1", "it's", "", "$x;y", NULL};
    g_autoptr(GError) error = NULL;
    g_autofree char *found = variables_replace(text, "calm-owl-1", args, NULL, &error);

    cr_assert_not_null(found, "%s: %s", text, error ? error->message : "");
    cr_assert_str_eq(found, expected);
}

static void refuses(const char *text, const char *part)
{
    g_autoptr(GError) error = NULL;

    cr_assert_null(variables_replace(text, "calm-owl-1", NULL, NULL, &error), "accepted %s", text);
    cr_assert(error_is(error, EINVAL));
    cr_assert_not_null(strstr(error->message, part), "%s", error->message);
}

Test(variables, are_replaced_and_the_rest_is_the_shells)
{
    gives("", "");
    gives("echo ${{ run.name }}-${{run.name}}", "echo calm-owl-1-calm-owl-1");
    gives("x ${{ run.args }}", "x --lr=0.1 'it'\\''s' '' '$x;y'");
    gives("${HOME} $1 $(x) {{ y }} }}", "${HOME} $1 $(x) {{ y }} }}");
    gives("$$ $$$$ $$${{ run.name }} $${{ run.name }}", "$ $$ $calm-owl-1 ${{ run.name }}");
    gives("$", "$");
}

Test(variables, that_there_are_not_are_refused)
{
    refuses("${{ run.nam }}", "run.nam");
    refuses("${{ }}", "run.args");
    refuses("echo ${{ run.name }", "no }}");
    refuses("${{", "no }}");
}

Test(variables, arguments_that_nothing_uses_are_told_apart)
{
    bool uses = false;
    g_autofree char *one = variables_replace("$${{ run.args }}", "x", NULL, &uses, NULL);
    g_autofree char *two = NULL;

    cr_assert_str_eq(one, "${{ run.args }}");
    cr_assert_not(uses);
    two = variables_replace("a ${{ run.args }}", "x", NULL, &uses, NULL);
    cr_assert_str_eq(two, "a ");
    cr_assert(uses);
}
