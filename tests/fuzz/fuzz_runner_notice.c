/* What a cloud's metadata server answers: a byte for the cloud, a byte for the status, the body. */
#include "runner/job/notice.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    unsigned status;
    const char *body;
    size_t size;
} said;

/* In the place of the real one: there is no server. */
bool metadata_ask(struct metadata *metadata, const char *method, const char *path,
                  const char *header, unsigned timeout_ms, struct metadata_answer *answer,
                  GError **error)
{
    *answer = (struct metadata_answer){.status = said.status,
                                       .body = g_string_new_len(said.body, (gssize)said.size),
                                       .etag = g_strndup(said.body, said.size),
                                       .now_s = 1700000000};
    return true;
}

void metadata_answer_clear(struct metadata_answer *answer)
{
    g_string_free(answer->body, TRUE);
    g_free(answer->etag);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct cloud *const clouds[] = {&cloud_aws, &cloud_gcp, &cloud_azure};
    static const unsigned statuses[] = {200, 401, 404, 500};
    struct metadata metadata = {0};

    if (size < 2)
        return 0;
    said.status = statuses[data[1] % G_N_ELEMENTS(statuses)];
    said.body = (const char *)data + 2;
    said.size = size - 2;
    if (data[1] & 4) /* else it is asked for with the first question */
        metadata.token = g_strdup("machine-0");
    for (unsigned i = 0; i < 2; i++) {
        g_autoptr(GError) error = NULL;
        struct notice notice = {0};
        bool asked = clouds[data[0] % G_N_ELEMENTS(clouds)]->ask(&metadata, &notice, &error);

        if (asked == (error != NULL) || notice.left_ms < -1 || notice.left_ms > 600000 ||
            (metadata.token && strpbrk(metadata.token, "\r\n") && data[0] % 3 != 2))
            abort();
    }
    g_free(metadata.token);
    return 0;
}
