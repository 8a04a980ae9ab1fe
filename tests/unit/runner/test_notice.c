/* The clouds' notices, as their metadata servers would give them. */
#include "config/error.h"
#include "runner/job/notice.h"
#include "tests/support/script_server.h"
#include <criterion/criterion.h>
#include <string.h>

struct fake {
    const char *const *answers; /* "METHOD TARGET-PREFIX|HEADER it must have|STATUS|BODY" */
};

#define DATE "Date: Mon, 19 Sep 2016 18:29:00 GMT\r\nETag: 411261ca6c9e4452\r\n"

static void answer(struct script_exchange *exchange, void *user)
{
    const struct fake *fake = user;
    g_autofree char *line = g_strdup_printf("%s %s", exchange->method, exchange->target);

    for (const char *const *at = fake->answers; *at; at++) {
        g_auto(GStrv) parts = g_strsplit(*at, "|", 4);

        if (!g_str_has_prefix(line, parts[0]))
            continue;
        if (!strcasestr(exchange->head, parts[1]))
            break;
        script_answer(exchange, (unsigned)atoi(parts[2]), DATE, parts[3]);
        return;
    }
    script_answer(exchange, 400, NULL, line);
}

static bool ask_times(const struct cloud *cloud, const char *const *answers, int times,
                      struct notice *notice)
{
    struct fake fake = {answers};
    struct script_server *server = script_server_start(NULL, answer, &fake);
    g_autofree char *base = g_strdup_printf("http://127.0.0.1:%u", script_server_port(server));
    g_autoptr(GError) error = NULL;
    struct metadata metadata;
    bool fine = true;

    metadata_init(&metadata, base);
    for (int i = 0; i < times && fine; i++) {
        *notice = (struct notice){0};
        fine = cloud->ask(&metadata, notice, &error);
    }
    metadata_clear(&metadata);
    script_server_stop(server);
    if (!fine)
        cr_assert_not_null(error);
    return fine;
}

static void expect(const struct cloud *cloud, const char *const *answers, bool is_coming,
                   int64_t left_ms)
{
    struct notice notice;

    cr_assert(ask_times(cloud, answers, 2, &notice), "%s", cloud->name);
    cr_assert_eq(notice.is_coming, is_coming, "%s", cloud->name);
    if (is_coming)
        cr_assert_eq(notice.left_ms, left_ms, "%s: %" G_GINT64_FORMAT, cloud->name, notice.left_ms);
}

#define AWS_TOKEN "PUT /latest/api/token|X-aws-ec2-metadata-token-ttl-seconds: 21600|200|TOKEN"
#define AWS_GET   "GET /latest/meta-data/spot/instance-action|X-aws-ec2-metadata-token: TOKEN"

Test(notice, aws)
{
    static const char *const none[] = {AWS_TOKEN, AWS_GET "|404|Not Found", NULL};
    static const char *const coming[] = {
        AWS_TOKEN, AWS_GET "|200|{\"action\": \"terminate\", \"time\": \"2016-09-19T18:31:00Z\"}",
        NULL};
    static const char *const damaged[] = {AWS_TOKEN, AWS_GET "|200|{\"action\": 7", NULL};
    static const char *const old_token[] = {AWS_TOKEN, AWS_GET "|401|", NULL};

    expect(&cloud_aws, none, false, 0);
    expect(&cloud_aws, coming, true, 120000);
    expect(&cloud_aws, damaged, false, 0);
    expect(&cloud_aws, old_token, false, 0);
}

/* Its time is an hour away from the server's own clock: nothing is known of how much is left. */
Test(notice, a_time_that_makes_no_sense_is_soon)
{
    static const char *const answers[] = {
        AWS_TOKEN, AWS_GET "|200|{\"action\": \"stop\", \"time\": \"2016-09-19T17:31:00Z\"}", NULL};

    expect(&cloud_aws, answers, true, -1);
}

#define GCP_FIRST "GET /computeMetadata/v1/instance/preempted?wait_for_change=true&timeout_sec=60&"
#define GCP_THEN  GCP_FIRST "last_etag=411261ca6c9e4452|Metadata-Flavor: Google"

Test(notice, gcp)
{
    static const char *const none[] = {
        GCP_THEN "|200|FALSE\n", GCP_FIRST "last_etag=0|Metadata-Flavor: Google|200|FALSE\n", NULL};
    static const char *const coming[] = {
        GCP_THEN "|200|TRUE\n", GCP_FIRST "last_etag=0|Metadata-Flavor: Google|200|FALSE\n", NULL};

    expect(&cloud_gcp, none, false, 0);
    expect(&cloud_gcp, coming, true, 30000);
}

#define AZURE_NAME "GET /metadata/instance/compute/name|Metadata: true|200|vm-7"
#define AZURE_GET  "GET /metadata/scheduledevents?api-version=|Metadata: true"

Test(notice, azure)
{
    static const char *const none[] = {AZURE_NAME, AZURE_GET "|200|{\"Events\": []}", NULL};
    static const char *const other[] = {
        AZURE_NAME,
        AZURE_GET "|200|{\"Events\": [{\"EventType\": \"Preempt\", \"Resources\": [\"vm-8\"]}, "
                  "{\"EventType\": \"Freeze\", \"Resources\": [\"vm-7\"]}]}",
        NULL};
    static const char *const coming[] = {
        AZURE_NAME,
        AZURE_GET "|200|{\"Events\": [{\"EventType\": \"Preempt\", \"Resources\": [\"vm-8\", "
                  "\"vm-7\"], \"NotBefore\": \"Mon, 19 Sep 2016 18:29:47 GMT\"}]}",
        NULL};

    expect(&cloud_azure, none, false, 0);
    expect(&cloud_azure, other, false, 0);
    expect(&cloud_azure, coming, true, 47000);
}

Test(notice, a_server_that_is_not_well_is_no_notice)
{
    static const char *const broken[] = {AWS_TOKEN, AWS_GET "|500|", NULL};
    static const char *const nothing[] = {NULL};
    struct notice notice;

    cr_assert_not(ask_times(&cloud_aws, broken, 1, &notice));
    cr_assert_not(ask_times(&cloud_aws, nothing, 1, &notice));
    cr_assert_not(ask_times(&cloud_gcp, nothing, 1, &notice));
    cr_assert_not(ask_times(&cloud_azure, nothing, 1, &notice));
}

Test(notice, which_cloud)
{
    g_setenv("DSTACK_CLOUD", "azure", TRUE);
    cr_assert_eq(cloud_find(), &cloud_azure);
    g_setenv("DSTACK_CLOUD", "none", TRUE);
    cr_assert_null(cloud_find());
}
