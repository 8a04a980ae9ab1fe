/* Workflows: what is accepted, and what is said of what is not. */
#include "config/workflow.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>

static GPtrArray *parse(const char *text, GError **error)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func((GDestroyNotify)workflow_free);

    if (!workflows_parse("w.yaml", text, strlen(text), list, error))
        return NULL;
    return g_steal_pointer(&list);
}

static void refuses(const char *text, const char *place, const char *part)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) list = parse(text, &error);

    cr_assert_null(list, "accepted: %s", text);
    cr_assert_eq(error->code, EINVAL);
    cr_assert(g_str_has_prefix(error->message, place), "%s", error->message);
    cr_assert_not_null(strstr(error->message, part), "%s", error->message);
}

#define BEGIN "workflows:\n  - name: a\n    provider: bash\n"

Test(workflow, takes_every_part)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) list = parse(BEGIN "    commands: [one, two]\n"
                                            "    env: [A=1, B]\n"
                                            "    artifacts:\n"
                                            "      - path: ./out//x/\n"
                                            "        mount: true\n"
                                            "      - path: ~/y\n"
                                            "      - path: /z\n"
                                            "    deps:\n"
                                            "      - tag: best\n"
                                            "    nodes: 2\n"
                                            "    retry: {attempts: 3, duration: 2h}\n"
                                            "    stop_signal: SIGUSR1\n",
                                      &error);
    struct workflow *workflow;
    struct workflow_artifact *artifact;

    cr_assert_not_null(list, "%s", error ? error->message : "");
    workflow = workflows_find(list, "a", &error);
    cr_assert_not_null(workflow);
    cr_assert_str_eq(workflow->commands[1], "two");
    cr_assert_str_eq(workflow->env[1], "B");
    artifact = workflow->artifacts->pdata[0];
    cr_assert_str_eq(artifact->path, "out/x");
    cr_assert(artifact->mount);
    artifact = workflow->artifacts->pdata[1];
    cr_assert_str_eq(artifact->path, "~/y");
    cr_assert_not(artifact->mount);
    artifact = workflow->artifacts->pdata[2];
    cr_assert_str_eq(artifact->path, "/z");
    cr_assert_str_eq(((struct workflow_dep *)workflow->deps->pdata[0])->tag, "best");
    cr_assert_eq(workflow->lifetime.nodes, 2);
    cr_assert_eq(workflow->lifetime.attempts, 3);
    cr_assert_eq(workflow->lifetime.duration_ms, 7200000);
    cr_assert_eq(workflow->lifetime.stop_signal, SIGUSR1);
}

Test(workflow, takes_what_it_wants_of_its_machine)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) list = parse(
        "workflows:\n"
        "  - name: d\n    provider: docker\n    image: a/b:1\n    entrypoint: bash -c 'a b'\n"
        "    registry_auth: {username: me, password: '${{ secrets.T }}'}\n"
        "    home_dir: /home/me\n    ports: [80, '3000:8080']\n    cache: [./c/, path: ~/d]\n"
        "    resources: {cpu: 2, memory: 1GB, shm_size: 2MB, interruptible: true, remote: true,\n"
        "                gpu: {name: A100, count: 4, memory: 40GB}}\n"
        "  - name: l\n    provider: lab\n    setup: [a, b]\n    version: 3.6\n    ports: 2\n"
        "    python: 3.11\n    resources: {gpu: 1}\n"
        "  - name: p\n    provider: notebook\n    ports: 8080\n",
        &error);
    const struct workflow *docker, *lab;

    cr_assert_not_null(list, "%s", error ? error->message : "");
    docker = list->pdata[0];
    cr_assert_str_eq(docker->entrypoint[2], "a b");
    cr_assert_str_eq(docker->registry_password, "${{ secrets.T }}");
    cr_assert_str_eq(docker->ports[1], "3000:8080");
    cr_assert_str_eq(docker->cache[0], "c");
    cr_assert_str_eq(docker->cache[1], "~/d");
    cr_assert_eq(docker->resources.cpu, 2);
    cr_assert_eq(docker->resources.memory_bytes, 1ULL << 30);
    cr_assert_eq(docker->resources.shm_bytes, 2ULL << 20);
    cr_assert(docker->resources.interruptible && docker->resources.remote);
    cr_assert_eq(docker->resources.gpu, 4);
    cr_assert_str_eq(docker->resources.gpu_name, "A100");
    lab = list->pdata[1];
    cr_assert_str_eq(lab->setup[1], "b");
    cr_assert_str_eq(lab->version, "3.6");
    cr_assert_eq(g_strv_length(lab->ports), 2);
    cr_assert_str_eq(lab->ports[1], "0");
    cr_assert_eq(lab->resources.gpu, 1);
    cr_assert_str_eq(((struct workflow *)list->pdata[2])->ports[0], "8080");
}

Test(workflow, knows_which_keys_are_whose)
{
    refuses(BEGIN "    commands: [x]\n    image: y\n", "w.yaml:5:5: ", "provider docker");
    refuses(BEGIN "    commands: [x]\n    setup: y\n", "w.yaml:5:5: ", "code, lab, notebook");
    refuses("workflows:\n  - name: a\n    provider: lab\n    commands: [x]\n",
            "w.yaml:4:5: ", "bash, docker");
    refuses("workflows:\n  - name: a\n    provider: docker\n", "w.yaml:2:5: ", "image");
    refuses("workflows:\n  - name: a\n    provider: [bash]\n", "w.yaml:3:15: ", "a list");
}

Test(workflow, says_where_and_what_was_expected)
{
    refuses(BEGIN "    comands: [x]\n", "w.yaml:4:5: ", "commands");
    refuses(BEGIN, "w.yaml:2:5: ", "commands");
    refuses(BEGIN "    commands: []\n", "w.yaml:2:5: ", "commands");
    refuses(BEGIN "    commands: {a: b}\n", "w.yaml:4:15: ", "list");
    refuses(BEGIN "    commands: [x]\n    artifacts: out\n", "w.yaml:5:16: ", "must be a list");
    refuses("workflows:\n  - provider: bash\n", "w.yaml:2:5: ", "name");
    refuses("workflows:\n  - name: a\n    provider: bsh\n", "w.yaml:3:15: ", "bash");
    refuses("workflows: [\n", "w.yaml:", "");
    refuses("workflow: []\n", "w.yaml:1:1: ", "workflows");
}

Test(workflow, refuses_two_of_a_name)
{
    refuses(BEGIN "    commands: [x]\n  - name: a\n    provider: bash\n    commands: [y]\n",
            "w.yaml:5:5: ", "w.yaml:2");
}

Test(workflow, refuses_artifacts_outside)
{
    static const char *const paths[] = {"/",  "//",  "..",      "a/../..", "../x", "~",
                                        "~/", "./~", "././~/x", ".",       "''"};

    for (unsigned i = 0; i < G_N_ELEMENTS(paths); i++) {
        g_autofree char *text =
            g_strdup_printf(BEGIN "    commands: [x]\n    artifacts:\n      - path: %s\n",
                            strcmp(paths[i], "~") ? paths[i] : "'~'");

        refuses(text, "w.yaml:6:9: ", "refused");
    }
}

Test(workflow, refuses_artifacts_that_would_overwrite_each_other)
{
    static const char *const pairs[][2] = {{"x", "./x/"},  {"x", "~/x"},  {"~/x", "/x"},
                                           {"/x", "x"},    {"x", "/x/y"}, {"~/x/y", "x"},
                                           {"~/x", "~//x"}};

    for (unsigned i = 0; i < G_N_ELEMENTS(pairs); i++) {
        g_autofree char *text = g_strdup_printf(
            BEGIN "    commands: [x]\n    artifacts:\n      - path: %s\n      - path: %s\n",
            pairs[i][0], pairs[i][1]);

        refuses(text, "w.yaml:7:9: ", "same place");
    }
}

Test(workflow, takes_artifacts_that_keep_apart)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) list = parse(
        BEGIN "    commands: [x]\n    artifacts: [x, x/y, xy, ~/x.y, /x-y, /tmp/x]\n", &error);

    cr_assert_not_null(list, "%s", error ? error->message : "");
    cr_assert_eq(((struct workflow *)list->pdata[0])->artifacts->len, 6);
}

Test(workflow, checks_the_values_of_what_it_wants)
{
    static const struct {
        const char *line, *place, *part;
    } wrong[] = {
        {"working_dir: a/../../x", "w.yaml:5:18: ", "working_dir"},
        {"env: [1A=x]", "w.yaml:5:11: ", "NAME=VALUE"},
        {"env: [AWS_SESSION_TOKEN=x]", "w.yaml:5:11: ", "alone"},
        {"resources: {memory: -1GB}", "w.yaml:5:25: ", "16GB"},
        {"resources: {cpu: 1.5}", "w.yaml:5:22: ", "whole number"},
        {"resources: {gpu: {cont: 1}}", "w.yaml:5:23: ", "did you mean \"count\""},
        {"ports: [0]", "w.yaml:5:13: ", "65535"},
        {"ports: ['1:2:3']", "w.yaml:5:13: ", "PORT:LOCAL"},
        {"cache: x", "w.yaml:5:12: ", "must be a list"},
        {"cache: [~]", "w.yaml:5:13: ", "path"},
        {"ports: [80, '80:90']", "w.yaml:5:17: ", "clash"},
        {"ports: [80, '81:80']", "w.yaml:5:17: ", "clash"},
        {"python: three", "w.yaml:5:13: ", "3.11"},
        {"resources: {local: true, remote: true}", "w.yaml:5:16: ", "exclude"},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autofree char *text = g_strdup_printf(BEGIN "    commands: [x]\n    %s\n", wrong[i].line);

        refuses(text, wrong[i].place, wrong[i].part);
    }
}

Test(workflow, checks_the_values_of_docker)
{
    static const struct {
        const char *line, *place, *part;
    } wrong[] = {
        {"registry_auth: {username: [x]}", "w.yaml:5:31: ", "text"},
        {"registry_auth: {username: x}", "w.yaml:5:20: ", "password"},
        {"registry_auth: {username: x, password: hunter2}", "w.yaml:5:44: ", "secrets add"},
        {"entrypoint: a 'b", "w.yaml:5:17: ", "entrypoint"},
        {"home_dir: x", "w.yaml:5:15: ", "absolute"},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autofree char *text = g_strdup_printf(
            "workflows:\n  - name: a\n    provider: docker\n    image: x\n    %s\n", wrong[i].line);

        refuses(text, wrong[i].place, wrong[i].part);
    }
}

Test(workflow, refuses_aliases_and_depth)
{
    g_autoptr(GString) deep = g_string_new("workflows: ");

    refuses("workflows: &a [*a]\n", "w.yaml:1:", "");
    for (int i = 0; i < 1000; i++)
        g_string_append_c(deep, '[');
    refuses(deep->str, "w.yaml:1:", "");
}

Test(workflow, an_unknown_one_tells_which_there_are)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) list = parse(BEGIN "    commands: [x]\n", &error);

    cr_assert_not_null(list);
    cr_assert_null(workflows_find(list, "b", &error));
    cr_assert_eq(error->code, ENOENT);
    cr_assert_str_eq(error->message, "no workflow \"b\"; there are: a");
}

Test(workflow, a_directory_that_cannot_be_read_is_an_error)
{
    g_autofree char *top = g_dir_make_tmp("dstack-flow-XXXXXX", NULL);
    g_autofree char *dstack = g_build_filename(top, ".dstack", NULL);
    g_autofree char *workflows = g_build_filename(dstack, "workflows", NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) list = workflows_load(top, &error);

    cr_assert_not_null(list, "%s", error ? error->message : "");
    cr_assert_eq(list->len, 0);
    g_mkdir(dstack, 0700);
    cr_assert(g_file_set_contents(workflows, "", 0, NULL));
    cr_assert_null(workflows_load(top, &error));
    cr_assert_eq(error->code, EIO);
    g_unlink(workflows);
    g_rmdir(dstack);
    g_rmdir(top);
}

Test(workflow, refuses_restarts_and_signals_that_cannot_be)
{
    refuses(BEGIN "    commands: a\n    nodes: 0\n", "w.yaml:5:12: ", "nodes");
    refuses(BEGIN "    commands: a\n    retry: 3\n", "w.yaml:5:12: ", "attempts");
    refuses(BEGIN "    commands: a\n    retry: {attempts: none}\n", "w.yaml:5:23: ", "attempts");
    refuses(BEGIN "    commands: a\n    retry: {duration: soon}\n", "w.yaml:5:23: ", "duration");
    refuses(BEGIN "    commands: a\n    retry: {atempts: 3}\n", "w.yaml:5:13: ", "attempts");
    refuses(BEGIN "    commands: a\n    stop_signal: KILL\n", "w.yaml:5:18: ", "stop_signal");
}
