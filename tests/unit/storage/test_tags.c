/* Tags: documents that are foreign, claims, moves, and listings of many. */
#include "config/error.h"
#include "storage/tags.h"
#include "tests/support/memory_store.h"
#include <criterion/criterion.h>
#include <string.h>

static bool save(struct store *root, const char *name, const char *run, bool move, GError **error)
{
    g_autoptr(Tag) tag = tag_new(name, run);

    tag->artifacts = g_strsplit("output,~/x,/opt/env", ",", -1);
    return tag_save(root, "demo", tag, move, error);
}

Test(tags, what_was_saved_is_loaded)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(GError) error = NULL;
    g_autoptr(Tag) tag = NULL;
    int64_t before = g_get_real_time() / 1000;

    cr_assert(save(root, "best", "calm-owl-1", false, &error), "%s", error ? error->message : "");
    tag = tag_load(root, "demo", "best", &error);
    cr_assert_not_null(tag, "%s", error ? error->message : "");
    cr_assert_str_eq(tag->name, "best");
    cr_assert_str_eq(tag->run, "calm-owl-1");
    cr_assert_str_eq(tag->owner, g_get_user_name());
    cr_assert_geq(tag->created_ms, before);
    cr_assert_not(tag->is_folder);
    cr_assert_eq(g_strv_length(tag->artifacts), 3);
    cr_assert_str_eq(tag->artifacts[1], "~/x");
}

Test(tags, a_tag_is_moved_only_when_that_is_asked_for)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(GError) error = NULL;
    g_autoptr(Tag) tag = NULL;

    cr_assert(save(root, "best", "calm-owl-1", false, NULL));
    cr_assert(save(root, "best", "calm-owl-1", false, NULL)); /* again: as it is */
    cr_assert_not(save(root, "best", "calm-owl-2", false, &error));
    cr_assert(error_is(error, EEXIST) && strstr(error->message, "calm-owl-1"));
    cr_assert(save(root, "best", "calm-owl-2", true, NULL));
    tag = tag_load(root, "demo", "best", NULL);
    cr_assert_str_eq(tag->run, "calm-owl-2");
}

Test(tags, many_are_listed_and_what_is_none_is_named)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(GPtrArray) tags = NULL, unread = g_ptr_array_new_with_free_func(g_free);

    for (int i = 0; i < 100; i++) {
        g_autofree char *name = g_strdup_printf("tag-%03d", i);

        cr_assert(save(root, name, "calm-owl-1", false, NULL));
    }
    cr_assert(store_write(root, "tags/demo/bad.json", "{", 1, NULL, NULL, NULL));
    cr_assert(store_write(root, "tags/demo/empty.json", "", 0, NULL, NULL, NULL));
    cr_assert(store_write(root, "tags/demo/.hidden.json", "{\"run\":\"a\"}", 11, NULL, NULL, NULL));
    cr_assert(store_write(root, "tags/other/x.json", "{\"run\":\"a\"}", 11, NULL, NULL, NULL));
    tags = tags_load(root, "demo", unread, NULL);
    cr_assert_not_null(tags);
    cr_assert_eq(unread->len, 2);
    cr_assert_str_eq(unread->pdata[0], "tags/demo/bad.json: tag bad: not a tag document");
    cr_assert_eq(tags->len, 100);
    cr_assert_str_eq(((struct tag *)tags->pdata[42])->name, "tag-042");
}

Test(tags, foreign_documents)
{
    static const struct {
        const char *text;
        bool good, knows_artifacts;
    } CASES[] = {
        {"{\"run\":\"a-1\"}", true, false}, /* as they once were */
        {"{\"run\":\"a-1\",\"artifacts\":[\"x\",\"/y\"]}", true, true},
        {"{\"run\":\"a-1\",\"artifacts\":[]}", true, true},
        {"{\"run\":\"a-1\",\"artifacts\":[\"../x\"]}", true, false},
        {"{\"run\":\"a-1\",\"artifacts\":[7]}", true, false},
        {"{\"run\":\"a-1\",\"artifacts\":\"x\"}", true, false},
        {"{\"run\":\"a-1\",\"version\":1}", true, false},
        {"{\"run\":\"a-1\",\"version\":\"1\"}", false, false},
        {"{\"run\":\"../x\"}", false, false},
        {"{\"run\":7}", false, false},
        {"{\"run\":\"a\",\"owner\":7}", false, false},
        {"{\"run\":\"a\",\"run\":\"b\"}", false, false},
        {"[]", false, false},
        {"", false, false},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(CASES); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(Tag) tag = tag_parse("t", CASES[i].text, strlen(CASES[i].text), &error);

        cr_assert_eq(tag != NULL, CASES[i].good, "%s", CASES[i].text);
        cr_assert(tag || error_is(error, EINVAL));
        if (tag)
            cr_assert_eq(tag->artifacts != NULL, CASES[i].knows_artifacts, "%s", CASES[i].text);
    }
}

Test(tags, a_newer_versions_is_neither_read_nor_written_over)
{
    static const char NEWER[] = "{\"version\":2,\"runs\":[\"a-1\",\"a-2\"]}";
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(GError) error = NULL, moved = NULL;

    cr_assert(store_write(root, "tags/demo/best.json", NEWER, sizeof(NEWER) - 1, NULL, NULL, NULL));
    cr_assert_null(tag_load(root, "demo", "best", &error));
    cr_assert(error_is(error, ENOTSUP) && strstr(error->message, "newer"), "%s", error->message);
    cr_assert_not(save(root, "best", "calm-owl-1", true, &moved));
    cr_assert(error_is(moved, ENOTSUP), "%s", moved->message);
}
