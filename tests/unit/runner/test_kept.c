/* What keeps artifacts: runs and tags; deps that mean them; and what is said of a job's transfers.
 */
#include "config/error.h"
#include "config/repo.h"
#include "config/workflow.h"
#include "runner/job/job_progress.h"
#include "runner/run/kept.h"
#include "runner/run/run_store.h"
#include "runner/submit/code.h"
#include "runner/submit/deps.h"
#include "tests/support/memory_store.h"
#include <criterion/criterion.h>
#include <string.h>

static struct run *add_run(struct store *root, const char *name, enum run_status status)
{
    struct run *run = run_new("demo", name);
    g_autofree char *key = g_strdup_printf("artifacts/demo/%s/output/f", name);

    run->provider = g_strdup("bash");
    run->workflow = g_strdup("w");
    run_add_artifact(run, "output", false);
    cr_assert(run_store_create(root, run, NULL));
    cr_assert(store_write(root, key, "x", 1, NULL, NULL, NULL));
    if (status != RUN_PENDING)
        cr_assert(run_store_move(root, run, status, NULL, NULL));
    return run;
}

static bool has(struct store *root, const char *key)
{
    struct store_object object = {0};
    bool found = store_head(root, key, &object, NULL);

    store_object_clear(&object);
    return found;
}

#define ARTIFACT "artifacts/demo/a-1/output/f"

Test(kept, artifacts_stay_until_the_last_tag_goes)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(Run) run = add_run(root, "a-1", RUN_FAILED);
    g_autoptr(Tag) one = NULL, two = NULL;
    bool tagged;

    cr_assert(kept_tag_run(root, run, "one", false, NULL));
    cr_assert(kept_tag_run(root, run, "two", false, NULL));
    cr_assert(kept_remove_run(root, "demo", "a-1", &tagged, NULL));
    cr_assert(tagged && has(root, ARTIFACT));
    one = tag_load(root, "demo", "one", NULL);
    two = tag_load(root, "demo", "two", NULL);
    cr_assert(kept_remove_tag(root, "demo", one, NULL));
    cr_assert(has(root, ARTIFACT));
    cr_assert(kept_remove_tag(root, "demo", two, NULL));
    cr_assert_not(has(root, ARTIFACT));
}

/* A mount that was killed leaves them to the next one, which never comes. */
Test(kept, uploads_that_were_not_finished_go_with_the_artifacts)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(Run) run = add_run(root, "a-1", RUN_FAILED), other = add_run(root, "a-2", RUN_FAILED);
    g_autoptr(StoreCall) begin = store_call_new(STORE_BEGIN, "artifacts/demo/a-1/output/large"),
                         beside = store_call_new(STORE_BEGIN, "artifacts/demo/a-2/output/large");
    bool tagged;

    cr_assert(store_run(root, begin, NULL) && store_run(root, beside, NULL));
    cr_assert(kept_remove_run(root, "demo", "a-1", &tagged, NULL));
    cr_expect_eq(memory_store_uploads(root), 1);
    cr_assert(kept_remove_run(root, "demo", "a-2", &tagged, NULL));
    cr_expect_eq(memory_store_uploads(root), 0);
}

Test(kept, a_tag_that_moves_lets_go_of_what_nothing_else_keeps)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(Run) run = add_run(root, "a-1", RUN_FAILED), next = add_run(root, "a-2", RUN_FAILED);
    bool tagged;

    cr_assert(kept_tag_run(root, run, "best", false, NULL));
    cr_assert(kept_remove_run(root, "demo", "a-1", &tagged, NULL));
    cr_assert(kept_tag_run(root, next, "best", true, NULL));
    cr_assert_not(has(root, ARTIFACT));
    cr_assert(has(root, "artifacts/demo/a-2/output/f"));
}

Test(kept, a_tag_of_a_run_that_goes_at_the_same_moment_does_not_stay)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(Run) run = add_run(root, "a-1", RUN_FAILED);
    g_autoptr(GError) error = NULL;

    cr_assert(store_delete(root, "runs/demo/a-1.json", NULL)); /* after it was loaded */
    cr_assert_not(kept_tag_run(root, run, "best", false, &error));
    cr_assert(error_is(error, ENOENT) && strstr(error->message, "a-1"));
    cr_assert_not(has(root, "tags/demo/best.json") || has(root, ARTIFACT));
}

Test(kept, a_tag_document_that_cannot_be_read_keeps_everything)
{
    static const char *const TEXTS[] = {"{\"version\":2,\"runs\":[\"a-1\"]}", "{", ""};

    for (unsigned i = 0; i < G_N_ELEMENTS(TEXTS); i++) {
        g_autoptr(Store) root = memory_store_new();
        g_autoptr(Run) run = add_run(root, "a-1", RUN_FAILED);
        g_autoptr(GError) error = NULL;
        bool tagged;

        cr_assert(
            store_write(root, "tags/demo/new.json", TEXTS[i], strlen(TEXTS[i]), NULL, NULL, NULL));
        cr_assert_not(kept_remove_run(root, "demo", "a-1", &tagged, &error));
        cr_assert(error_is(error, EBUSY) && strstr(error->message, "tags/demo/new.json"), "%s",
                  error->message);
        cr_assert(has(root, ARTIFACT) && has(root, "runs/demo/a-1.json"));
        cr_assert(store_delete(root, "tags/demo/new.json", NULL));
        cr_assert(kept_remove_run(root, "demo", "a-1", &tagged, NULL));
        cr_assert_not(has(root, ARTIFACT));
    }
}

Test(kept, an_unfinished_run_stays)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(Run) run = add_run(root, "a-1", RUN_PENDING);
    g_autoptr(GError) error = NULL;
    bool tagged;

    run->submitted_ms = run_now_ms();
    cr_assert(run_store_save(root, run, NULL));
    cr_assert_not(kept_remove_run(root, "demo", "a-1", &tagged, &error));
    cr_assert(error_is(error, EPERM), "%s", error->message);
    cr_assert(has(root, ARTIFACT) && has(root, "runs/demo/a-1.json"));
}

Test(kept, code_goes_with_the_last_that_needs_it)
{
    g_autoptr(Store) root = memory_store_new();

    cr_assert(store_write(root, "code/abc.tar.zst", "x", 1, NULL, NULL, NULL));
    cr_assert(store_write(root, "code/abc!one", "", 0, NULL, NULL, NULL));
    cr_assert(store_write(root, "code/abc!two", "", 0, NULL, NULL, NULL));
    cr_assert(code_release(root, "abc", "one", NULL));
    cr_assert(has(root, "code/abc.tar.zst"));
    cr_assert(code_release(root, "abc", "two", NULL));
    cr_assert_not(has(root, "code/abc.tar.zst"));
    cr_assert(code_release(root, "abc", "two", NULL)); /* nothing is left to do */
}

Test(kept, names_of_other_repos)
{
    static const char *const CASES[][2] = {{"acme/data", "acme.data"},
                                           {"acme.data", "acme.data"},
                                           {"a b/c", "a-b.c"},
                                           {"a/b/c", NULL},
                                           {"/b", NULL},
                                           {"", NULL},
                                           {"a/", NULL},
                                           {"../..", NULL}};
    g_autofree char *url_id = repo_id_of_url("git@example.com:acme/data.git");

    for (unsigned i = 0; i < G_N_ELEMENTS(CASES); i++) {
        g_autofree char *id = repo_id_of_name(CASES[i][0]);

        cr_assert_eq(g_strcmp0(id, CASES[i][1]), 0, "%s: %s", CASES[i][0], id);
    }
    cr_assert_str_eq(url_id, "acme.data");
}

Test(kept, deps_and_artifacts_keep_out_of_each_others_way)
{
    static const struct {
        const char *dep, *other_dep, *artifact;
        bool dep_mount, artifact_mount, good;
    } CASES[] = {
        {"data", "model", NULL, false, false, true},
        {"data", "data", NULL, false, false, false},
        {"data", "data/x", NULL, false, false, false},
        {"data", "database", NULL, true, false, true},
        {"data", NULL, "data", false, false, true}, /* the run goes on with what it got */
        {"data", NULL, "data", false, true, false},
        {"data/x", NULL, "data", false, true, false},
        {"data", NULL, "data/out", false, true, true},
        {"data", NULL, "data/out", true, false, false},
        {"data", NULL, "other", true, true, true},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(CASES); i++) {
        g_autoptr(Run) run = run_new("demo", "b-1");
        g_autoptr(GError) error = NULL;

        run_add_dep(run, NULL, "a-1", CASES[i].dep, CASES[i].dep_mount);
        if (CASES[i].other_dep)
            run_add_dep(run, NULL, "a-2", CASES[i].other_dep, false);
        if (CASES[i].artifact)
            run_add_artifact(run, CASES[i].artifact, CASES[i].artifact_mount);
        cr_assert_eq(deps_check(run, &error), CASES[i].good, "case %u", i);
        cr_assert(CASES[i].good || error_is(error, EINVAL));
    }
}

Test(kept, a_home_path_and_its_absolute_form_are_one_place)
{
    g_autofree char *absolute = g_build_filename(g_get_home_dir(), "x", NULL);
    g_autoptr(Run) run = run_new("demo", "b-1");

    run_add_dep(run, NULL, "a-1", "~/x", false);
    run_add_dep(run, NULL, "a-2", absolute, false);
    cr_assert_not(deps_check(run, NULL));
}

Test(kept, foreign_progress)
{
    static const char *const BAD[] = {"",
                                      "label",
                                      "label\n1 2 3 4",
                                      "l\n1 2 3 4 -1",
                                      "l\n1 2 3 4 5 6",
                                      "l\na b c d e",
                                      "\xff\n1 2 3 4 0"};
    struct transfer_progress now;
    g_autofree char *label = NULL;

    for (unsigned i = 0; i < G_N_ELEMENTS(BAD); i++)
        cr_assert_not(job_progress_parse(BAD[i], &label, &now), "%s", BAD[i]);
    cr_assert(job_progress_parse("Uploading\n1 2 3 4 1\n", &label, &now));
    cr_assert_str_eq(label, "Uploading");
    cr_assert_eq(now.files_done, 1);
    cr_assert_eq(now.bytes_total, 4);
    cr_assert(now.counting);
}
