/* What Slurm's programs print: sinfo's nodes, scontrol's jobs and configuration, their complaints.
 * The first byte says which of the calls fail; each answer ends at a 0x1e. */
#include "runner/engine/engine.h"
#include "runner/engine/slurm.h"
#include "runner/tool.h"

#include "config/error.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    char **answers;
    unsigned next, failing;
} said;

/* In the place of the real one: nothing is run. */
bool tool_run(const struct tool *tool, char **output, GError **error)
{
    const char *text = said.answers[said.next] ? said.answers[said.next++] : "";
    bool fails = said.failing & 1;

    said.failing >>= 1;
    if (fails) {
        g_autofree char *valid = g_utf8_make_valid(text, -1);

        return error_set(error, EIO, "%s: %s", tool->argv[0], valid);
    }
    if (output)
        *output = g_strdup(text);
    return true;
}

static void check(bool ok, GError **error)
{
    if (ok == (*error != NULL))
        abort();
    g_clear_error(error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct slurm_settings slurm = {.partition = size % 2 ? (char *)"gpu" : NULL};
    g_autofree char *text = size ? g_strndup((const char *)data + 1, size - 1) : g_strdup("");
    g_auto(GStrv) answers = g_strsplit(text, "\x1e", 8);
    struct engine_answer answer = {.state = ENGINE_UNKNOWN};
    g_autoptr(Run) run = run_new("demo", "grumpy-zebra-1");
    g_autofree char *constraint = NULL;
    GError *error = NULL;

    said.answers = answers;
    said.next = 0;
    said.failing = size ? data[0] : 0;
    run->resources.cpu = 2;
    run->resources.memory_bytes = 1 << 30;
    run->resources.gpu = 1;
    run->resources.gpu_memory_bytes = UINT64_C(40) << 30;
    run->engine_job = g_strdup("7 cluster");
    check(slurm_fits(&slurm, run, &constraint, &error), &error);
    check(engine_slurm.status(run, &answer, &error), &error);
    g_free(answer.reason);
    return 0;
}
