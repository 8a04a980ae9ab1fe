/* Where the keys to an S3 store come from: a table of providers, asked in order.
 *
 * shape:  environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), then the
 *         profile in ~/.aws/credentials and ~/.aws/config (AWS_SHARED_CREDENTIALS_FILE and
 *         AWS_CONFIG_FILE name others). A profile asked for by name comes before the environment.
 * errors: EACCES: none found, with where it was looked; EINVAL: a file or value is malformed.
 * safety: secrets are never logged and never in messages.
 * later:  keys that expire (a role's, a web identity's) are a provider more, and a time in struct
 *         credentials. sign_try in s3_request.c reads the credentials for each try of a request,
 * and s3_answer_judge sees each refusal: these two are where to ask the providers again, once the
 * time has passed or the store has said ExpiredToken.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

struct credentials {
    char *access_key, *secret_key;
    char *session_token; /* NULL: none */
    char *region;        /* never NULL */
};

/* PROFILE and REGION may be NULL. */
bool credentials_load(const char *profile, const char *region, struct credentials *credentials,
                      GError **error);

/* Wipes the secrets before freeing them. */
void credentials_clear(struct credentials *credentials);
