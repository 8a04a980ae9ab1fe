#include "storage/s3_xml.h"

#include "config/error.h"

#include <criterion/criterion.h>
#include <string.h>

#define LIST(fields) "<?xml version=\"1.0\"?><ListBucketResult>" fields "</ListBucketResult>"

static struct store_call *list(const char *xml, GError **error)
{
    struct store_call *call = store_call_new(STORE_LIST, "");

    if (s3_xml_list(xml, strlen(xml), call, error))
        return call;
    store_call_unref(call);
    return NULL;
}

Test(s3_xml, listing)
{
    g_autoptr(StoreCall) call =
        list(LIST("<Contents><Key>a%2Bb+c</Key><LastModified>2009-10-12T17:50:30.123Z"
                  "</LastModified><ETag>&quot;e1&quot;</ETag><Size>434234</Size>"
                  "<Owner><ID>Key</ID></Owner></Contents><CommonPrefixes><Prefix>d%2F</Prefix>"
                  "</CommonPrefixes><EncodingType>url</EncodingType><IsTruncated>true"
                  "</IsTruncated><NextContinuationToken>t&amp;1</NextContinuationToken>"),
             NULL);
    const struct store_object *object;

    cr_assert_not_null(call);
    cr_assert_eq(call->objects->len, 1);
    object = call->objects->pdata[0];
    cr_assert_str_eq(object->key, "a+b c");
    cr_assert_str_eq(object->etag, "e1");
    cr_assert_eq(object->size_bytes, 434234);
    cr_assert_eq(object->mtime_ns, INT64_C(1255369830123000000));
    cr_assert_eq(call->prefixes->len, 1);
    cr_assert_str_eq(call->prefixes->pdata[0], "d/");
    cr_assert_str_eq(call->next_token, "t&1");
}

Test(s3_xml, listing_without_encoding_keeps_keys)
{
    g_autoptr(StoreCall) call =
        list(LIST("<Contents><Key>a%2Bb+c</Key><Size>0</Size></Contents><IsTruncated>false"
                  "</IsTruncated><NextContinuationToken>t</NextContinuationToken>"),
             NULL);

    cr_assert_str_eq(((struct store_object *)call->objects->pdata[0])->key, "a%2Bb+c");
    cr_assert_null(call->next_token);
}

Test(s3_xml, refuses_bad_listings)
{
    static const char *const bad[] = {
        "",
        "no XML",
        "<Error><Code>x</Code></Error>",
        "<ListBucketResult><Contents><Key>a</Key>",
        LIST("<Contents><Size>1</Size></Contents>"),
        LIST("<Contents><Key>a</Key><Size>-1</Size></Contents>"),
        LIST("<Contents><Key>a</Key><Size>99999999999999999999</Size></Contents>"),
        LIST("<Contents><Key>a%f</Key></Contents><EncodingType>url</EncodingType>"),
        LIST("<Contents><Key>a%00</Key></Contents><EncodingType>url</EncodingType>"),
        LIST("<Contents><Key>%ff</Key></Contents><EncodingType>url</EncodingType>"),
        LIST("<IsTruncated>true</IsTruncated>"),
        "<!DOCTYPE x>" LIST(""),
        LIST("<a><a><a><a><a><a><a><a/></a></a></a></a></a></a></a>"),
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;

        cr_assert_null(list(bad[i], &error), "%s", bad[i]);
        cr_assert(error_is(error, EIO));
    }
}

/* Whoever strips the prefix relies on its being there. */
Test(s3_xml, refuses_keys_that_were_not_asked_for)
{
    static const char *const bad[] = {
        LIST("<Contents><Key>run/</Key></Contents>"),
        LIST("<Contents><Key>x</Key></Contents>"),
        LIST("<Contents><Key></Key></Contents>"),
        LIST("<CommonPrefixes><Prefix>run/</Prefix></CommonPrefixes>"),
        LIST("<CommonPrefixes><Prefix>run/1/a</Prefix></CommonPrefixes>"),
        LIST("<CommonPrefixes><Prefix></Prefix></CommonPrefixes>"),
    };
    static const char good[] = LIST("<Contents><Key>run/1/</Key></Contents>"
                                    "<CommonPrefixes><Prefix>run/1/a/</Prefix></CommonPrefixes>");

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(StoreCall) call = store_call_new(STORE_LIST, "run/1/");
        g_autoptr(GError) error = NULL;

        cr_assert_not(s3_xml_list(bad[i], strlen(bad[i]), call, &error), "%s", bad[i]);
        cr_assert(error_is(error, EIO));
    }
    {
        g_autoptr(StoreCall) call = store_call_new(STORE_LIST, "run/1/");

        cr_assert(s3_xml_list(good, strlen(good), call, NULL));
    }
}

Test(s3_xml, refuses_long_texts)
{
    g_autofree char *long_text = g_strnfill(70000, 'x');
    g_autofree char *xml = g_strdup_printf("<Error><Code>%s</Code></Error>", long_text);
    struct s3_error found;

    cr_assert_not(s3_xml_error(xml, strlen(xml), &found));
}

Test(s3_xml, uploads_and_their_token)
{
    static const char xml[] =
        "<ListMultipartUploadsResult><EncodingType>url</EncodingType><IsTruncated>true"
        "</IsTruncated><NextKeyMarker>k%2F1</NextKeyMarker><NextUploadIdMarker>2~i/d"
        "</NextUploadIdMarker><Upload><Key>k%2F1</Key><UploadId>2~i/d</UploadId>"
        "<Initiated>1970-01-01T00:00:01Z</Initiated></Upload></ListMultipartUploadsResult>";
    g_autoptr(StoreCall) call = store_call_new(STORE_UPLOADS, "");
    g_autofree char *key = NULL, *upload_id = NULL;
    const struct store_upload *upload;

    cr_assert(s3_xml_uploads(xml, strlen(xml), call, NULL));
    cr_assert_eq(call->uploads->len, 1);
    upload = call->uploads->pdata[0];
    cr_assert_str_eq(upload->key, "k/1");
    cr_assert_str_eq(upload->upload_id, "2~i/d");
    cr_assert_eq(upload->started_ns, 1000000000);
    cr_assert(s3_xml_split_token(call->next_token, &key, &upload_id));
    cr_assert_str_eq(key, "k/1");
    cr_assert_str_eq(upload_id, "2~i/d");
}

Test(s3_xml, errors)
{
    static const char xml[] = "<Error><Code>SlowDown</Code><Message>a &lt; b</Message>"
                              "<Detail><Code>other</Code></Detail></Error>";
    struct s3_error found;

    cr_assert(s3_xml_error(xml, strlen(xml), &found));
    cr_assert_str_eq(found.code, "SlowDown");
    cr_assert_str_eq(found.message, "a < b");
    s3_error_clear(&found);
    cr_assert_not(s3_xml_error("<Error/>", 8, &found));
}

Test(s3_xml, deleted)
{
    static const char xml[] = "<DeleteResult><Deleted><Key>x</Key></Deleted>"
                              "<Error><Key>gone</Key><Code>NoSuchKey</Code></Error>"
                              "<Error><Key>a&#13;b</Key><Code>AccessDenied</Code></Error>"
                              "<Error><Key>c</Key><Code>Other</Code></Error></DeleteResult>";
    g_autoptr(GPtrArray) failed = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *code = NULL;

    cr_assert(s3_xml_deleted(xml, strlen(xml), failed, &code, NULL));
    cr_assert_eq(failed->len, 2);
    cr_assert_str_eq(failed->pdata[0], "a\rb");
    cr_assert_str_eq(failed->pdata[1], "c");
    cr_assert_str_eq(code, "AccessDenied");
}

Test(s3_xml, texts)
{
    static const char xml[] = "<s:CopyObjectResult xmlns:s=\"u\"><s:ETag>\"e\"</s:ETag>"
                              "</s:CopyObjectResult>";
    g_autoptr(GError) error = NULL;
    g_autofree char *etag = s3_xml_text(xml, strlen(xml), "CopyObjectResult", "ETag", NULL);

    cr_assert_str_eq(etag, "e");
    cr_assert_null(s3_xml_text(xml, strlen(xml), "CopyObjectResult", "Other", &error));
    cr_assert(error_is(error, EIO));
}

Test(s3_xml, delete_request_escapes_keys)
{
    g_autoptr(GPtrArray) keys = g_ptr_array_new();
    g_autoptr(GString) xml = NULL;

    g_ptr_array_add(keys, (void *)"a<&>\"'\r\n");
    xml = s3_xml_make_delete(keys);
    cr_assert(strstr(xml->str, "<Key>a&#60;&#38;&#62;&#34;&#39;&#13;&#10;</Key>"), "%s", xml->str);
    cr_assert_not(s3_xml_can_hold("a\001b"));
    cr_assert(s3_xml_can_hold("a\r\n\tü"));
}

Test(s3_xml, commit_request)
{
    g_autoptr(StoreCall) call = store_call_commit("k", "id");
    g_autoptr(GPtrArray) checksums = g_ptr_array_new();
    g_autoptr(GString) xml = NULL;

    store_call_add_part(call, 1, "e1");
    store_call_add_part(call, 7, "e7");
    g_ptr_array_add(checksums, NULL);
    g_ptr_array_add(checksums, (void *)"4waSgw==");
    xml = s3_xml_make_commit(call->parts, checksums);
    cr_assert(strstr(xml->str, "<Part><PartNumber>1</PartNumber><ETag>&quot;e1&quot;</ETag></Part>"
                               "<Part><PartNumber>7</PartNumber><ETag>&quot;e7&quot;</ETag>"
                               "<ChecksumCRC32C>4waSgw==</ChecksumCRC32C></Part>"));
}

Test(s3_xml, times)
{
    cr_assert_eq(s3_xml_time("1970-01-01T00:00:00.001Z"), 1000000);
    cr_assert_eq(s3_xml_time("yesterday"), 0);
    cr_assert_eq(s3_xml_time("9999-12-31T23:59:59Z"), 0);
    cr_assert_eq(s3_xml_time("0001-01-01T00:00:00Z"), 0);
}
