/* A cloud's metadata server: small questions over plain HTTP.
 *
 * threads: one asks; another may cancel, which ends a question that waits.
 */
#pragma once

#include "storage/http.h"

struct metadata {
    char *base; /* "http://169.254.169.254" */
    struct http_engine *engine;
    int cancelled; /* atomic */
    char *token;   /* what the last answer gave for the next question; NULL: nothing */
};

struct metadata_answer {
    unsigned status;
    GString *body;
    char *etag;    /* NULL: none */
    int64_t now_s; /* by the server's clock, else ours */
};

void metadata_init(struct metadata *metadata, const char *base);
void metadata_clear(struct metadata *metadata);
void metadata_cancel(struct metadata *metadata);

/* HEADER ("name: value") may be NULL. False when there was no answer at all. */
bool metadata_ask(struct metadata *metadata, const char *method, const char *path,
                  const char *header, unsigned timeout_ms, struct metadata_answer *answer,
                  GError **error);
void metadata_answer_clear(struct metadata_answer *answer);
