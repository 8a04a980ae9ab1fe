/* A text with variables, which a document may hold: in a text for the shell no secret's value ever
 * stands. A text that is escaped is itself again. */
#include "runner/secrets/secrets.h"
#include "runner/submit/variables.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct secret secret = {"KEY", "\001value"};
    g_autoptr(GPtrArray) secrets = g_ptr_array_new(), used = g_ptr_array_new_with_free_func(g_free);
    char *args[] = {"a b", NULL};
    struct variables v = {.run_name = "x", .args = args, .secrets = secrets, .used = used};
    g_autofree char *text = g_strndup((const char *)data, size);
    g_autofree char *shell = variables_for_shell(&v, text, NULL);
    g_autofree char *value = NULL, *escaped = variables_escape(text), *again = NULL;

    g_ptr_array_add(secrets, &secret);
    if (shell && !strstr(text, secret.value))
        g_assert(!strstr(shell, secret.value));
    value = variables_for_value(&v, text, NULL);
    again = variables_for_value(&v, escaped, NULL);
    g_assert(again && strcmp(again, text) == 0);
    return 0;
}
