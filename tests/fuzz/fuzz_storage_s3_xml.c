/* Every reader of S3's XML on the same bytes. */
#include "storage/s3_xml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_call(const char *text, size_t size, enum store_verb verb,
                      bool (*read)(const char *, size_t, struct store_call *, GError **))
{
    g_autoptr(StoreCall) call = store_call_new(verb, "a");
    g_autofree char *key = NULL, *upload_id = NULL;

    if (read(text, size, call, NULL))
        for (guint i = 0; call->objects && i < call->objects->len; i++)
            g_assert(((struct store_object *)call->objects->pdata[i])->key[0] == 'a');
    if (call->next_token)
        s3_xml_split_token(call->next_token, &key, &upload_id);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    g_autoptr(GPtrArray) failed = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *code = NULL, *etag = NULL;
    struct s3_error found;

    if (s3_xml_error(text, size, &found))
        s3_error_clear(&found);
    read_call(text, size, STORE_LIST, s3_xml_list);
    read_call(text, size, STORE_UPLOADS, s3_xml_uploads);
    s3_xml_deleted(text, size, failed, &code, NULL);
    etag = s3_xml_text(text, size, "CopyObjectResult", "ETag", NULL);
    return 0;
}
