#include "storage/credentials.h"

#include "config/error.h"

#include <criterion/criterion.h>
#include <glib/gstdio.h>
#include <string.h>

static char *dir, *credentials_path, *config_path;

static void setup(void)
{
    static const char *const variables[] = {"AWS_ACCESS_KEY_ID",  "AWS_SECRET_ACCESS_KEY",
                                            "AWS_SESSION_TOKEN",  "AWS_REGION",
                                            "AWS_DEFAULT_REGION", "AWS_PROFILE"};

    for (unsigned i = 0; i < G_N_ELEMENTS(variables); i++)
        g_unsetenv(variables[i]);
    dir = g_dir_make_tmp("dstack-credentials-XXXXXX", NULL);
    cr_assert_not_null(dir);
    credentials_path = g_build_filename(dir, "credentials", NULL);
    config_path = g_build_filename(dir, "config", NULL);
    g_setenv("AWS_SHARED_CREDENTIALS_FILE", credentials_path, TRUE);
    g_setenv("AWS_CONFIG_FILE", config_path, TRUE);
}

static void teardown(void)
{
    g_unlink(credentials_path);
    g_unlink(config_path);
    g_rmdir(dir);
    g_free(credentials_path);
    g_free(config_path);
    g_free(dir);
}

TestSuite(credentials, .init = setup, .fini = teardown);

static void write_file(const char *path, const char *text)
{
    cr_assert(g_file_set_contents(path, text, -1, NULL));
}

static void expect(const char *profile, const char *access_key, const char *secret_key,
                   const char *token, const char *region)
{
    struct credentials found;
    g_autoptr(GError) error = NULL;

    cr_assert(credentials_load(profile, NULL, &found, &error), "%s", error ? error->message : "");
    cr_assert_str_eq(found.access_key, access_key);
    cr_assert_str_eq(found.secret_key, secret_key);
    cr_assert_eq(g_strcmp0(found.session_token, token), 0);
    cr_assert_str_eq(found.region, region);
    credentials_clear(&found);
}

static void expect_error(const char *profile, int code, const char *part)
{
    struct credentials found;
    g_autoptr(GError) error = NULL;

    cr_assert_not(credentials_load(profile, NULL, &found, &error));
    cr_assert(error_is(error, code), "%s", error->message);
    cr_assert(strstr(error->message, part), "%s", error->message);
    cr_assert_null(strstr(error->message, "hidden"), "a secret is in the message");
}

Test(credentials, none_says_where_it_looked)
{
    expect_error(NULL, EACCES, credentials_path);
    expect_error(NULL, EACCES, "AWS_ACCESS_KEY_ID");
    expect_error("other", EACCES, "\"other\"");
}

Test(credentials, from_environment)
{
    g_setenv("AWS_ACCESS_KEY_ID", "id", TRUE);
    g_setenv("AWS_SECRET_ACCESS_KEY", "hidden", TRUE);
    expect(NULL, "id", "hidden", NULL, "us-east-1");
    g_setenv("AWS_SESSION_TOKEN", "token", TRUE);
    g_setenv("AWS_DEFAULT_REGION", "eu-west-1", TRUE);
    expect(NULL, "id", "hidden", "token", "eu-west-1");
    g_setenv("AWS_REGION", "eu-west-2", TRUE);
    expect(NULL, "id", "hidden", "token", "eu-west-2");
}

Test(credentials, half_of_an_environment_is_none)
{
    g_setenv("AWS_ACCESS_KEY_ID", "id", TRUE);
    expect_error(NULL, EACCES, "no credentials");
}

Test(credentials, from_files)
{
    write_file(credentials_path, "[default]\naws_access_key_id = d\naws_secret_access_key=hidden\n"
                                 "\n[work]\naws_access_key_id=w\naws_secret_access_key=hidden2\n"
                                 "aws_session_token=t\n");
    write_file(config_path,
               "# comment\n[default]\nregion=r1\n[profile work]\nregion = r2\n"
               "s3 =\n  max_concurrent_requests = 20\n"
               "[profile config]\naws_access_key_id=c\naws_secret_access_key=hidden3\n");
    expect(NULL, "d", "hidden", NULL, "r1");
    expect("work", "w", "hidden2", "t", "r2");
    expect("config", "c", "hidden3", NULL, "us-east-1");
    g_setenv("AWS_PROFILE", "work", TRUE);
    expect(NULL, "w", "hidden2", "t", "r2");
    expect_error("nobody", EACCES, "\"nobody\"");
}

Test(credentials, files_as_aws_writes_and_reads_them)
{
    write_file(credentials_path, "; mine\r\n\r\n[default]\r\naws_access_key_id = A\r\n"
                                 "\t; no key = of mine\r\naws_secret_access_key=s;#\r\n");
    write_file(config_path, "[default]\ns3 =\n    max_concurrent_requests = 20\nregion = r\n;");
    expect(NULL, "A", "s;#", NULL, "r");
}

Test(credentials, environment_beats_files_but_not_a_named_profile)
{
    write_file(credentials_path, "[default]\naws_access_key_id=d\naws_secret_access_key=hidden\n"
                                 "[work]\naws_access_key_id=w\naws_secret_access_key=hidden2\n");
    g_setenv("AWS_ACCESS_KEY_ID", "id", TRUE);
    g_setenv("AWS_SECRET_ACCESS_KEY", "hidden4", TRUE);
    g_setenv("AWS_SESSION_TOKEN", "token", TRUE);
    expect(NULL, "id", "hidden4", "token", "us-east-1");
    expect("work", "w", "hidden2", NULL, "us-east-1");
}

Test(credentials, a_malformed_file_is_an_error)
{
    write_file(credentials_path, "aws_secret_access_key=hidden\n");
    expect_error(NULL, EINVAL, credentials_path);
}

Test(credentials, refuses_what_would_end_a_header)
{
    g_setenv("AWS_ACCESS_KEY_ID", "id\r\nx-evil: 1", TRUE);
    g_setenv("AWS_SECRET_ACCESS_KEY", "hidden", TRUE);
    expect_error(NULL, EINVAL, "control character");
}
