/* The keys that requests are signed with, and renewing them: what expires is written anew into
 * ~/.aws by whoever keeps it, and is read from there when the store refuses the old ones.
 *
 * threads: any; credentials_lock guards the keys, and is held while a try is signed.
 */
#include "storage/s3_op.h"

#include <string.h>

#define RENEW_S 1 /* not more often, when calls are refused one after the other */

void s3_credentials_sign(struct s3_op *op, struct s3_signing *signing, GPtrArray *headers)
{
    struct s3_store *s3 = op->s3;

    pthread_mutex_lock(&s3->credentials_lock);
    signing->credentials = &s3->credentials;
    op->signed_with = s3->credentials_number;
    s3_sign(signing, headers);
    pthread_mutex_unlock(&s3->credentials_lock);
}

static bool is_about_keys(const struct s3_op *op, const char *code)
{
    static const char *const codes[] = {"ExpiredToken",         "InvalidToken",
                                        "TokenRefreshRequired", "InvalidAccessKeyId",
                                        "AccessDenied",         NULL};

    if (op->http.status != 400 && op->http.status != 403)
        return false;
    /* The answer to a HEAD, of whatever stage, does not say. */
    return code ? g_strv_contains(codes, code) : g_str_equal(op->http.method, "HEAD");
}

/* Takes over other keys than those in use, if there are any. credentials_lock held. */
static void renew(struct s3_store *s3)
{
    struct credentials found;
    int64_t now_us = g_get_monotonic_time();

    if (s3->credentials_read_us && now_us - s3->credentials_read_us < RENEW_S * G_USEC_PER_SEC)
        return;
    s3->credentials_read_us = now_us;
    if (!credentials_load(s3->profile, s3->credentials.region, &found, NULL))
        return; /* being written: the keys in use are refused, and that is what is said */
    if (g_strcmp0(found.access_key, s3->credentials.access_key) == 0 &&
        g_strcmp0(found.secret_key, s3->credentials.secret_key) == 0 &&
        g_strcmp0(found.session_token, s3->credentials.session_token) == 0) {
        credentials_clear(&found);
        return;
    }
    credentials_clear(&s3->credentials);
    s3->credentials = found;
    s3->credentials_number++;
}

bool s3_credentials_renewed(struct s3_op *op, const char *code)
{
    struct s3_store *s3 = op->s3;
    bool is_new;

    if (!is_about_keys(op, code))
        return false;
    pthread_mutex_lock(&s3->credentials_lock);
    if (op->signed_with == s3->credentials_number)
        renew(s3);
    is_new = op->signed_with != s3->credentials_number;
    pthread_mutex_unlock(&s3->credentials_lock);
    return is_new;
}
