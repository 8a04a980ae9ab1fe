/* The run document and the table of statuses. */
#include "config/error.h"
#include "runner/run/run.h"
#include "runner/run/run_marker.h"
#include <criterion/criterion.h>
#include <string.h>

static struct run *example(void)
{
    struct run *run = run_new("demo", "grumpy-zebra-1");

    run->workflow = g_strdup("hello-sh");
    run->provider = g_strdup("bash");
    run->commands = g_strsplit("echo 'a \"b\"'|sleep 1", "|", -1);
    run->env = g_strsplit("A=1|B=x=y", "|", -1);
    run_add_artifact(run, "output", true);
    run_add_dep(run, NULL, "calm-owl-2", "data", false);
    run->ports = g_strsplit("8080|3000:80|0", "|", -1);
    run->cache = g_strsplit("~/.cache/pip|data", "|", -1);
    run->python = g_strdup("3.11");
    run->setup = g_strsplit("pip install x|true", "|", -1);
    run->ide_version = g_strdup("1.2");
    run->image = g_strdup("ghcr.io/a/b:1");
    run->home_dir = g_strdup("/home/me");
    run->entrypoint = g_strsplit("bash|-c", "|", -1);
    run->registry_username = g_strdup("me");
    run->registry_password = g_strdup("${{ secrets.TOKEN }}");
    run->resources = (struct resources){.cpu = 4,
                                        .gpu = 2,
                                        .gpu_name = g_strdup("A100"),
                                        .memory_bytes = 16ULL << 30,
                                        .gpu_memory_bytes = 40ULL << 30,
                                        .shm_bytes = 8ULL << 30,
                                        .interruptible = true,
                                        .remote = true};
    run->owner.host = g_strdup("here");
    run->owner.machine = g_strdup("boot/1");
    run->owner.pid = 17;
    return run;
}

Test(run, comes_back_as_it_was)
{
    g_autoptr(Run) run = example();
    g_autoptr(GError) error = NULL;
    g_autoptr(Run) back = NULL;
    g_autofree char *text = NULL;
    size_t size;

    run->status = RUN_UPLOADING;
    run->exit_code = 3;
    text = run_format(run, &size);
    back = run_parse("demo", "grumpy-zebra-1", text, size, &error);
    cr_assert_not_null(back, "%s", error ? error->message : "");
    cr_assert_eq(back->status, RUN_UPLOADING);
    cr_assert_eq(back->exit_code, 3);
    cr_assert_str_eq(back->commands[0], "echo 'a \"b\"'");
    cr_assert_str_eq(back->env[1], "B=x=y");
    cr_assert_str_eq(back->id, run->id);
    cr_assert_eq(back->owner.pid, 17);
    cr_assert(((struct run_artifact *)back->artifacts->pdata[0])->mount);
    cr_assert_str_eq(((struct run_dep *)back->deps->pdata[0])->run, "calm-owl-2");
}

Test(run, keeps_all_that_a_workflow_may_say)
{
    g_autoptr(Run) run = example();
    g_autoptr(Run) back = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL, *again = NULL;
    size_t size;

    text = run_format(run, &size);
    back = run_parse("demo", "grumpy-zebra-1", text, size, &error);
    cr_assert_not_null(back, "%s", error ? error->message : "");
    cr_assert_str_eq(back->ports[1], "3000:80");
    cr_assert_str_eq(back->entrypoint[1], "-c");
    cr_assert_str_eq(back->registry_password, "${{ secrets.TOKEN }}");
    cr_assert_eq(back->resources.gpu_memory_bytes, 40ULL << 30);
    cr_assert(back->resources.interruptible && back->resources.remote && !back->resources.local);
    again = run_format(back, NULL);
    cr_assert_str_eq(again, text);
}

Test(run, a_document_from_before_still_parses)
{
    static const char old[] =
        "{\"version\":1,\"repo\":\"demo\",\"name\":\"a-1\",\"spec\":{\"provider\":\"bash\"},"
        "\"state\":{\"id\":\"ab-1\",\"status\":\"done\"}}";
    g_autoptr(GError) error = NULL;
    g_autoptr(Run) run = run_parse("demo", "a-1", old, strlen(old), &error);

    cr_assert_not_null(run, "%s", error ? error->message : "");
    cr_assert_null(run->ports[0]);
    cr_assert_null(run->python);
    cr_assert_not(resources_asked(&run->resources));
}

/* FROM becomes TO in an otherwise good document: refused with CODE. */
static void expect_refused(const char *from, const char *to, int code)
{
    g_autoptr(Run) run = example();
    g_autofree char *text = run_format(run, NULL);
    g_auto(GStrv) parts = g_strsplit(text, from, 2);
    g_autofree char *bad = g_strjoinv(to, parts);
    g_autoptr(GError) error = NULL;

    cr_assert_eq(g_strv_length(parts), 2, "the document has no %s", from);
    cr_assert_null(run_parse("demo", "grumpy-zebra-1", bad, strlen(bad), &error), "%s", to);
    cr_assert(error_is(error, code), "%s: %s", to, error->message);
}

Test(run, refuses_what_is_foreign)
{
    expect_refused("\"version\": 1", "\"version\": 2", ENOTSUP);
    expect_refused("\"version\": 1", "\"version\": \"1\"", EINVAL);
    expect_refused("\"repo\": \"demo\"", "\"repo\": \"other\"", EINVAL);
    expect_refused("\"path\": \"output\"", "\"path\": \"../output\"", EINVAL);
    expect_refused("\"path\": \"output\"", "\"path\": \"a/../../b\"", EINVAL);
    expect_refused("\"path\": \"output\"", "\"path\": \"/\"", EINVAL);
    expect_refused("\"path\": \"output\"", "\"path\": \"a\\u0000b\"", EINVAL);
    expect_refused("\"status\": \"pending\"", "\"status\": \"paused\"", EINVAL);
    expect_refused("\"attempt\": 1", "\"attempt\": -1", EINVAL);
    expect_refused("\"A=1\"", "\"=1\"", EINVAL);
    expect_refused("\"run\": \"calm-owl-2\"", "\"run\": \"../x\"", EINVAL);
    expect_refused("\"3000:80\"", "\"3000:99999\"", EINVAL);
    expect_refused("\"~/.cache/pip\"", "\"../.cache/pip\"", EINVAL);
    expect_refused("\"${{ secrets.TOKEN }}\"", "\"hunter2\"", EINVAL);
    expect_refused("\"cpu\": 4", "\"cpu\": -4", EINVAL);
    expect_refused("\"3.11\"", "\"3.11; rm\"", EINVAL);
    expect_refused("{", "[", EINVAL);
}

Test(run, statuses_follow_the_table)
{
    cr_assert(run_status_may(RUN_PENDING, RUN_SUBMITTED));
    cr_assert(run_status_may(RUN_PENDING, RUN_INTERRUPTED)); /* its engine did not take it again */
    cr_assert(run_status_may(RUN_UPLOADING, RUN_DONE));
    cr_assert(run_status_may(RUN_STOPPING, RUN_ABORTING));
    cr_assert_not(run_status_may(RUN_ABORTING, RUN_STOPPING));
    cr_assert_not(run_status_may(RUN_ABORTING, RUN_FAILED));
    cr_assert_not(run_status_may(RUN_RUNNING, RUN_DONE));
    for (int to = 0; to < RUN_STATUSES; to++) {
        cr_assert_not(run_status_may(RUN_ABORTED, to));
        cr_assert_not(run_status_may(RUN_DONE, to));
    }
}

Test(run, status_names_are_read_back)
{
    for (int i = 0; i < RUN_STATUSES; i++) {
        enum run_status status;

        cr_assert(run_status_parse(run_status_name(i), &status));
        cr_assert_eq((int)status, i);
    }
}

Test(run, artifact_prefixes)
{
    static const char *const PATHS[] = {"output", "./output/", "/output", "~/output"};

    for (guint i = 0; i < G_N_ELEMENTS(PATHS); i++) {
        g_autofree char *prefix = run_artifact_prefix("demo", "a-1", PATHS[i]);

        cr_assert_str_eq(prefix, "artifacts/demo/a-1/output/");
    }
}

Test(run, a_marker_says_what_ps_shows)
{
    g_autoptr(Run) run = example();
    g_autofree char *key = NULL;
    struct run_marker marker;

    g_free(run->workflow);
    run->workflow = g_strdup("train ! größer/2");
    run->status = RUN_FAILED;
    run->exit_code = 137;
    run->user = g_strdup("WORK\\a very long name indeed");
    run->submitted_ms = 1234567890123;
    run->revision = 7;
    key = run_marker_key(run);
    cr_assert(run_marker_parse("demo", key, &marker), "%s", key);
    cr_assert_str_eq(marker.name, "grumpy-zebra-1");
    cr_assert_eq(marker.status, RUN_FAILED);
    cr_assert_eq(marker.exit_code, 137);
    cr_assert_eq(marker.submitted_ms, 1234567890123);
    cr_assert_eq(marker.revision, 7);
    cr_assert_str_eq(marker.workflow, "train ! größer/2");
    cr_assert_str_eq(marker.user, "WORK-a-very-long");
    run_marker_clear(&marker);
}

Test(run, keys_that_are_no_markers)
{
    static const char *const KEYS[] = {"runs/demo/a-1.json",
                                       "runs/demo/a-1!done",
                                       "runs/demo/a-1!done!x!0!0!1!w",
                                       "runs/demo/../b!done!1!0!0!1!w",
                                       "runs/other/a-1!done!1!0!0!1!w",
                                       "runs/demo/a-1!done!1!0!0!1!w!me!more",
                                       "runs/demo/a-1!gone!1!0!0!1!w"};
    struct run_marker marker;

    for (guint i = 0; i < G_N_ELEMENTS(KEYS); i++)
        cr_assert_not(run_marker_parse("demo", KEYS[i], &marker), "%s", KEYS[i]);
}
