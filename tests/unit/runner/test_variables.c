/* Variables in commands. */
#include "config/error.h"
#include "runner/secrets/secrets.h"
#include "runner/submit/variables.h"
#include <criterion/criterion.h>
#include <string.h>

static void gives(const char *text, const char *expected)
{
    char *args[] = {"--lr=0.1", "it's", "", "$x;y", NULL};
    g_autoptr(GError) error = NULL;
    struct variables v = {.run_name = "calm-owl-1", .args = args};
    g_autofree char *found = variables_for_shell(&v, text, &error);

    cr_assert_not_null(found, "%s: %s", text, error ? error->message : "");
    cr_assert_str_eq(found, expected);
}

static void refuses(const char *text, const char *part)
{
    g_autoptr(GError) error = NULL;
    struct variables v = {.run_name = "calm-owl-1"};

    cr_assert_null(variables_for_shell(&v, text, &error), "accepted %s", text);
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
    struct variables v = {.run_name = "x"};
    g_autofree char *one = variables_for_shell(&v, "$${{ run.args }}", NULL);
    g_autofree char *two = NULL;

    cr_assert_str_eq(one, "${{ run.args }}");
    cr_assert_not(v.uses_args);
    two = variables_for_shell(&v, "a ${{ run.args }}", NULL);
    cr_assert_str_eq(two, "a ");
    cr_assert(v.uses_args);
}

/* bash says what the words of the replaced text are, with the secret in its environment. */
static void bash_says(const char *text, const char *expected)
{
    struct variables v = {.run_name = "x"};
    g_autoptr(GError) error = NULL;
    g_autofree char *script = variables_for_shell(&v, text, &error), *out = NULL;
    char *argv[] = {"bash", "-c", script, NULL};
    g_auto(GStrv) env = g_environ_setenv(g_get_environ(), "KEY", "a  b'\"$x*", TRUE);

    cr_assert_not_null(script, "%s: %s", text, error ? error->message : "");
    cr_assert_null(strstr(script, "b'"), "the value is in %s", script);
    cr_assert(
        g_spawn_sync(NULL, argv, env, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, NULL, NULL, NULL));
    cr_assert_str_eq(out, expected, "%s became %s", text, script);
}

Test(variables, secrets_are_one_word_in_any_quotes)
{
    bash_says("printf '<%s>' ${{ secrets.KEY }}", "<a  b'\"$x*>");
    bash_says("printf '<%s>' \"u:${{ secrets.KEY }} z\"", "<u:a  b'\"$x* z>");
    bash_says("printf '<%s>' 'u:${{ secrets.KEY }} z'", "<u:a  b'\"$x* z>");
    bash_says("printf '<%s>' $'u\\'${{ secrets.KEY }}\\x41'", "<u'a  b'\"$x*A>");
    bash_says("printf '<%s>' a\\'${{secrets.KEY}}", "<a'a  b'\"$x*>");
    bash_says("# don't ${{ secrets.KEY }}\nprintf '<%s>' ${{ secrets.KEY }}", "<a  b'\"$x*>");
    bash_says("x=${{ secrets.KEY }} ; printf '<%s>' \"$x\"", "<a  b'\"$x*>");
    bash_says("cat <<< ${{ secrets.KEY }}", "a  b'\"$x*\n");
    bash_says("printf '<%s>' \"it's\" ${{ secrets.KEY }} ${#KEY}", "<it's><a  b'\"$x*><9>");
}

Test(variables, secrets_where_the_shell_would_not_replace_them_are_refused)
{
    refuses("cat <<'END'\n${{ secrets.KEY }}\nEND\n", "here-document");
    refuses("cat <<END\n${{ secrets.KEY }}\nEND\n", "here-document");
    refuses("echo ${{ secrets.A-B }}", "A-B");
    refuses("echo ${{ secrets.PATH }}", "PATH");
    refuses("echo ${{ secrets. }}", "name");
}

Test(variables, in_values_a_secret_is_its_value)
{
    struct secret secret = {"KEY", "a b"};
    g_autoptr(GPtrArray) secrets = g_ptr_array_new(), used = g_ptr_array_new_with_free_func(g_free);
    struct variables v = {.run_name = "x", .secrets = secrets, .used = used};
    g_autoptr(GError) error = NULL;
    g_autofree char *plain = variables_escape("${{ secrets.KEY }} $$"), *back = NULL, *value = NULL;

    g_ptr_array_add(secrets, &secret);
    value = variables_for_value(&v, "'${{ secrets.KEY }}' $$5 ${{ run.name }}", &error);
    cr_assert_str_eq(value, "'a b' $5 x");
    cr_assert_eq(used->len, 1);
    cr_assert_null(variables_for_value(&v, "${{ secrets.NONE }}", &error));
    cr_assert(error_is(error, ENOENT));
    back = variables_for_value(&v, plain, NULL);
    cr_assert_str_eq(back, "${{ secrets.KEY }} $$");
}
