#include "storage/s3_sign.h"

#include "storage/uri.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>
#include <time.h>

#define SHA256_BYTES 32
#define ALGORITHM    "AWS4-HMAC-SHA256"

char *s3_hex(const uint8_t *bytes, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    char *hex = g_malloc(2 * size + 1);

    for (size_t i = 0; i < size; i++) {
        hex[2 * i] = digits[bytes[i] >> 4];
        hex[2 * i + 1] = digits[bytes[i] & 15];
    }
    hex[2 * size] = '\0';
    return hex;
}

char *s3_sha256_hex(const struct iovec *iov, unsigned count)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    uint8_t digest[SHA256_BYTES];
    bool ok = context && EVP_DigestInit_ex(context, EVP_sha256(), NULL);

    for (unsigned i = 0; ok && i < count; i++)
        ok = EVP_DigestUpdate(context, iov[i].iov_base, iov[i].iov_len);
    ok = ok && EVP_DigestFinal_ex(context, digest, NULL);
    EVP_MD_CTX_free(context);
    g_assert(ok); /* SHA-256 in memory fails only when libcrypto is broken */
    return s3_hex(digest, sizeof(digest));
}

static char *text_sha256_hex(const char *text)
{
    struct iovec iov = {(void *)text, strlen(text)};

    return s3_sha256_hex(&iov, 1);
}

static void hmac(const uint8_t *key, size_t key_size, const char *text, uint8_t mac[SHA256_BYTES])
{
    unsigned size = SHA256_BYTES;

    g_assert(
        HMAC(EVP_sha256(), key, (int)key_size, (const uint8_t *)text, strlen(text), mac, &size));
}

static void add_value(GString *canonical, const char *value)
{
    g_auto(GStrv) words = g_strsplit_set(value, " \t", -1);
    bool first = true;

    for (char **word = words; *word; word++) {
        if (!**word)
            continue;
        g_string_append_printf(canonical, "%s%s", first ? "" : " ", *word);
        first = false;
    }
}

/* The block of headers to be signed, and the list of their names. */
static char *canonical_headers(GPtrArray *headers, GString *names)
{
    GString *canonical = g_string_new(NULL);

    for (guint i = 0; i < headers->len; i++) {
        const char *header = headers->pdata[i], *colon = strchr(header, ':');

        g_string_append_printf(names, "%s%.*s", i ? ";" : "", (int)(colon - header), header);
        g_string_append_len(canonical, header, colon - header + 1);
        add_value(canonical, colon + 1);
        g_string_append_c(canonical, '\n');
    }
    return g_string_free(canonical, FALSE);
}

static char *signature(const struct s3_signing *signing, const char *date, const char *text)
{
    const char *steps[] = {signing->credentials->region, "s3", "aws4_request", text};
    g_autofree char *first = g_strconcat("AWS4", signing->credentials->secret_key, NULL);
    uint8_t mac[SHA256_BYTES], next[SHA256_BYTES];

    hmac((const uint8_t *)first, strlen(first), date, mac);
    for (unsigned i = 0; i < G_N_ELEMENTS(steps); i++) {
        hmac(mac, sizeof(mac), steps[i], next);
        memcpy(mac, next, sizeof(mac));
    }
    explicit_bzero(first, strlen(first));
    return s3_hex(mac, sizeof(mac));
}

static void format_time(int64_t now_s, char time_text[17], char date[9])
{
    time_t now = (time_t)now_s;
    struct tm utc;

    gmtime_r(&now, &utc);
    strftime(time_text, 17, "%Y%m%dT%H%M%SZ", &utc);
    strftime(date, 9, "%Y%m%d", &utc);
}

static char *request_hash(const struct s3_signing *signing, GPtrArray *headers, GString *names)
{
    g_autofree char *block = canonical_headers(headers, names);
    g_autofree char *request = g_strjoin("\n", signing->method, signing->path, signing->query,
                                         block, names->str, signing->payload, NULL);

    return text_sha256_hex(request);
}

/* The string that is signed, and its signature. */
static char *sign_request(const struct s3_signing *signing, GPtrArray *headers, GString *names,
                          const char *time_text, const char *date, const char *scope)
{
    g_autofree char *hash = request_hash(signing, headers, names);
    g_autofree char *text = g_strjoin("\n", ALGORITHM, time_text, scope, hash, NULL);

    return signature(signing, date, text);
}

static char *scope_of(const struct s3_signing *signing, const char *date)
{
    return g_strdup_printf("%s/%s/s3/aws4_request", date, signing->credentials->region);
}

void s3_sign(const struct s3_signing *signing, GPtrArray *headers)
{
    const struct credentials *credentials = signing->credentials;
    g_autoptr(GString) names = g_string_new(NULL);
    g_autofree char *scope = NULL, *signed_text = NULL;
    char time_text[17], date[9];

    format_time(signing->now_s, time_text, date);
    g_ptr_array_add(headers, g_strconcat("x-amz-date:", time_text, NULL));
    g_ptr_array_add(headers, g_strconcat("x-amz-content-sha256:", signing->payload, NULL));
    if (credentials->session_token)
        g_ptr_array_add(headers,
                        g_strconcat("x-amz-security-token:", credentials->session_token, NULL));
    g_ptr_array_sort(headers, uri_compare_names);
    scope = scope_of(signing, date);
    signed_text = sign_request(signing, headers, names, time_text, date, scope);
    g_ptr_array_add(headers, g_strdup_printf("authorization:%s Credential=%s/%s, SignedHeaders=%s, "
                                             "Signature=%s",
                                             ALGORITHM, credentials->access_key, scope, names->str,
                                             signed_text));
}

char *s3_sign_query(const struct s3_signing *signing, const char *host, unsigned valid_s)
{
    const struct credentials *credentials = signing->credentials;
    g_autoptr(GPtrArray) headers = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) query = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GString) names = g_string_new(NULL);
    g_autofree char *seconds = g_strdup_printf("%u", valid_s);
    g_autofree char *scope = NULL, *who = NULL, *signed_text = NULL, *joined = NULL;
    struct s3_signing with_query = *signing;
    char time_text[17], date[9];

    format_time(signing->now_s, time_text, date);
    scope = scope_of(signing, date);
    who = g_strdup_printf("%s/%s", credentials->access_key, scope);
    g_ptr_array_add(headers, g_strconcat("host:", host, NULL));
    uri_query_add(query, "X-Amz-Algorithm", ALGORITHM);
    uri_query_add(query, "X-Amz-Credential", who);
    uri_query_add(query, "X-Amz-Date", time_text);
    uri_query_add(query, "X-Amz-Expires", seconds);
    uri_query_add(query, "X-Amz-SignedHeaders", "host");
    if (credentials->session_token)
        uri_query_add(query, "X-Amz-Security-Token", credentials->session_token);
    with_query.query = joined = uri_query_join(query);
    signed_text = sign_request(&with_query, headers, names, time_text, date, scope);
    return g_strconcat(joined, "&X-Amz-Signature=", signed_text, NULL);
}
