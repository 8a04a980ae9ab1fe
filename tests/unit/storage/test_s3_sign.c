/* The examples of "Authenticating Requests: Using the Authorization Header (AWS Signature Version
 * 4)" and "… Using Query Parameters", whose signatures Amazon publishes. */
#include "storage/s3_sign.h"

#include <criterion/criterion.h>
#include <string.h>

#define NOW_S 1369353600 /* 2013-05-24T00:00:00Z */
#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static struct credentials example = {.access_key = (char *)"AKIAIOSFODNN7EXAMPLE",
                                     .secret_key =
                                         (char *)"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                                     .region = (char *)"us-east-1"};

static GPtrArray *sign(struct s3_signing signing, const char *const *headers)
{
    GPtrArray *lines = g_ptr_array_new_with_free_func(g_free);

    signing.now_s = NOW_S;
    if (!signing.credentials)
        signing.credentials = &example;
    g_ptr_array_add(lines, g_strdup("host:examplebucket.s3.amazonaws.com"));
    for (; *headers; headers++)
        g_ptr_array_add(lines, g_strdup(*headers));
    s3_sign(&signing, lines);
    return lines;
}

static const char *authorization(GPtrArray *lines)
{
    return lines->pdata[lines->len - 1];
}

Test(s3_sign, get_object)
{
    static const char *const headers[] = {"range:bytes=0-9", NULL};
    struct s3_signing signing = {
        .method = "GET", .path = "/test.txt", .query = "", .payload = EMPTY};
    g_autoptr(GPtrArray) lines = sign(signing, headers);

    cr_assert_str_eq(authorization(lines),
                     "authorization:AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/"
                     "us-east-1/s3/aws4_request, "
                     "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
                     "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

Test(s3_sign, put_object)
{
    static const char *const headers[] = {"x-amz-storage-class:REDUCED_REDUNDANCY",
                                          "date:Fri, 24 May 2013 00:00:00 GMT", NULL};
    struct iovec body[] = {{(void *)"Welcome to ", 11}, {NULL, 0}, {(void *)"Amazon S3.", 10}};
    g_autofree char *payload = s3_sha256_hex(body, G_N_ELEMENTS(body));
    struct s3_signing signing = {
        .method = "PUT", .path = "/test%24file.text", .query = "", .payload = payload};
    g_autoptr(GPtrArray) lines = sign(signing, headers);

    cr_assert_str_eq(payload, "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072");
    cr_assert(g_str_has_suffix(authorization(lines),
                               "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"));
}

Test(s3_sign, query_without_value)
{
    static const char *const headers[] = {NULL};
    struct s3_signing signing = {
        .method = "GET", .path = "/", .query = "lifecycle=", .payload = EMPTY};
    g_autoptr(GPtrArray) lines = sign(signing, headers);

    cr_assert(g_str_has_suffix(authorization(lines),
                               "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"));
}

Test(s3_sign, query_with_values)
{
    static const char *const headers[] = {NULL};
    struct s3_signing signing = {
        .method = "GET", .path = "/", .query = "max-keys=2&prefix=J", .payload = EMPTY};
    g_autoptr(GPtrArray) lines = sign(signing, headers);

    cr_assert(g_str_has_suffix(authorization(lines),
                               "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"));
}

Test(s3_sign, session_token_is_signed)
{
    static const char *const headers[] = {NULL};
    struct credentials temporary = example;
    struct s3_signing signing = {.credentials = &temporary,
                                 .method = "GET",
                                 .path = "/",
                                 .query = "",
                                 .payload = S3_UNSIGNED_PAYLOAD};
    g_autoptr(GPtrArray) lines = NULL;

    temporary.session_token = (char *)"TOKEN";
    lines = sign(signing, headers);
    cr_assert(strstr(authorization(lines),
                     "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,"));
    cr_assert_str_eq((char *)lines->pdata[3], "x-amz-security-token:TOKEN");
}

Test(s3_sign, a_link_that_needs_no_headers)
{
    struct s3_signing signing = {.credentials = &example,
                                 .method = "GET",
                                 .path = "/test.txt",
                                 .payload = S3_UNSIGNED_PAYLOAD,
                                 .now_s = NOW_S};
    g_autofree char *query = s3_sign_query(&signing, "examplebucket.s3.amazonaws.com", 86400);

    cr_assert_str_eq(query,
                     "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F"
                     "20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&"
                     "X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature="
                     "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
}
