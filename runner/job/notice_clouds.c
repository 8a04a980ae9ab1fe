/* How each cloud says that it takes a machine away.
 *
 * source: AWS, "Spot Instance interruption notices" and "Use IMDSv2"; Google, "Preemptible VM
 *         instances: detect preemption" and "Wait for metadata changes"; Azure, "Scheduled Events
 *         for Linux VMs".
 * safety: answers are foreign; what is not understood is no notice.
 */
#include "config/error.h"
#include "runner/job/notice.h"
#include <jansson.h>
#include <string.h>

enum { ASK_MS = 5000, LEFT_MAX_MS = 600000, GCP_LEFT_MS = 30000, GCP_WAIT_S = 60 };

/* Until THEN_S by the clock of who said it; a time that makes no sense is "soon". */
static int64_t left_until(int64_t then_s, int64_t now_s)
{
    int64_t left_ms = (then_s - now_s) * 1000;

    return then_s > 0 && left_ms >= 0 && left_ms <= LEFT_MAX_MS ? left_ms : -1;
}

static bool unexpected(const char *path, const struct metadata_answer *answer, GError **error)
{
    return error_set(error, EIO, "%s: HTTP %u", path, answer->status);
}

/* --- AWS --- */

#define AWS_TOKEN  "/latest/api/token"
#define AWS_ACTION "/latest/meta-data/spot/instance-action"

static bool aws_get_token(struct metadata *metadata, GError **error)
{
    struct metadata_answer answer;
    bool fine;

    if (!metadata_ask(metadata, "PUT", AWS_TOKEN, "X-aws-ec2-metadata-token-ttl-seconds: 21600",
                      ASK_MS, &answer, error))
        return false;
    fine = answer.status == 200 && !strpbrk(answer.body->str, "\r\n");
    if (fine)
        metadata->token = g_strconcat("X-aws-ec2-metadata-token: ", answer.body->str, NULL);
    else
        unexpected(AWS_TOKEN, &answer, error);
    metadata_answer_clear(&answer);
    return fine;
}

static void aws_read(const struct metadata_answer *answer, struct notice *notice)
{
    json_t *root = json_loadb(answer->body->str, answer->body->len, 0, NULL);
    const char *action = json_string_value(json_object_get(root, "action"));
    const char *text = json_string_value(json_object_get(root, "time"));
    g_autoptr(GTimeZone) utc = g_time_zone_new_utc();
    g_autoptr(GDateTime) time = text ? g_date_time_new_from_iso8601(text, utc) : NULL;

    notice->is_coming = action != NULL;
    notice->left_ms = left_until(time ? g_date_time_to_unix(time) : 0, answer->now_s);
    json_decref(root);
}

static bool aws_ask(struct metadata *metadata, struct notice *notice, GError **error)
{
    struct metadata_answer answer;
    bool fine = true;

    if (!metadata->token && !aws_get_token(metadata, error))
        return false;
    if (!metadata_ask(metadata, "GET", AWS_ACTION, metadata->token, ASK_MS, &answer, error))
        return false;
    if (answer.status == 200)
        aws_read(&answer, notice);
    else if (answer.status == 401) /* the token is too old: a new one next time */
        g_clear_pointer(&metadata->token, g_free);
    else if (answer.status != 404) /* 404: nothing is planned */
        fine = unexpected(AWS_ACTION, &answer, error);
    metadata_answer_clear(&answer);
    return fine;
}

const struct cloud cloud_aws = {"aws", "Amazon EC2", "http://169.254.169.254", 5000, aws_ask};

/* --- Google --- */

#define GCP_PREEMPTED "/computeMetadata/v1/instance/preempted"

/* The answer comes when it changes, or after a while. */
static bool gcp_ask(struct metadata *metadata, struct notice *notice, GError **error)
{
    const char *last = metadata->token ? metadata->token : "0";
    g_autofree char *path = g_strdup_printf(
        GCP_PREEMPTED "?wait_for_change=true&timeout_sec=%d&last_etag=%s", GCP_WAIT_S, last);
    struct metadata_answer answer;
    bool fine = true;

    if (!metadata_ask(metadata, "GET", path, "Metadata-Flavor: Google", (GCP_WAIT_S + 5) * 1000,
                      &answer, error))
        return false;
    if (answer.status != 200)
        fine = unexpected(GCP_PREEMPTED, &answer, error);
    notice->is_coming = fine && g_str_has_prefix(answer.body->str, "TRUE");
    notice->left_ms = GCP_LEFT_MS;
    if (answer.etag && strspn(answer.etag, "0123456789abcdefABCDEF") == strlen(answer.etag)) {
        g_free(metadata->token);
        metadata->token = g_steal_pointer(&answer.etag);
    }
    metadata_answer_clear(&answer);
    return fine;
}

const struct cloud cloud_gcp = {"gcp", "Google", "http://169.254.169.254", 1000, gcp_ask};

/* --- Azure --- */

#define AZURE_NAME   "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
#define AZURE_EVENTS "/metadata/scheduledevents?api-version=2020-07-01"
#define AZURE_HEADER "Metadata: true"

/* The machine's name, by which an event says whom it is about. */
static bool azure_get_name(struct metadata *metadata, GError **error)
{
    struct metadata_answer answer;

    if (!metadata_ask(metadata, "GET", AZURE_NAME, AZURE_HEADER, ASK_MS, &answer, error))
        return false;
    if (answer.status == 200)
        metadata->token = g_strdup(answer.body->str);
    else
        unexpected(AZURE_NAME, &answer, error);
    metadata_answer_clear(&answer);
    return metadata->token != NULL;
}

static bool azure_is_about(json_t *event, const char *name)
{
    json_t *resource;
    size_t i;

    json_array_foreach(json_object_get(event, "Resources"), i, resource)
    {
        if (g_strcmp0(json_string_value(resource), name) == 0)
            return true;
    }
    return false;
}

static void azure_read(const struct metadata_answer *answer, const char *name,
                       struct notice *notice)
{
    static const char *const kinds[] = {"Preempt", "Terminate", "Redeploy", "Reboot", NULL};
    json_t *root = json_loadb(answer->body->str, answer->body->len, 0, NULL), *event;
    size_t i;

    json_array_foreach(json_object_get(root, "Events"), i, event)
    {
        const char *kind = json_string_value(json_object_get(event, "EventType"));
        const char *before = json_string_value(json_object_get(event, "NotBefore"));

        if (!kind || !g_strv_contains(kinds, kind) || !azure_is_about(event, name))
            continue;
        notice->is_coming = true;
        notice->left_ms =
            left_until(before && *before ? (int64_t)http_date(before) : 0, answer->now_s);
    }
    json_decref(root);
}

static bool azure_ask(struct metadata *metadata, struct notice *notice, GError **error)
{
    struct metadata_answer answer;
    bool fine = true;

    if (!metadata->token && !azure_get_name(metadata, error))
        return false;
    if (!metadata_ask(metadata, "GET", AZURE_EVENTS, AZURE_HEADER, ASK_MS, &answer, error))
        return false;
    if (answer.status == 200)
        azure_read(&answer, metadata->token, notice);
    else
        fine = unexpected(AZURE_EVENTS, &answer, error);
    metadata_answer_clear(&answer);
    return fine;
}

const struct cloud cloud_azure = {"azure", "Microsoft Corporation", "http://169.254.169.254", 2000,
                                  azure_ask};
