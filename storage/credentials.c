#include "storage/credentials.h"

#include "config/error.h"

#include <string.h>

#define DEFAULT_REGION "us-east-1"

struct search {
    const char *profile; /* the name to look under */
    bool is_named;       /* someone asked for it */
    char *credentials_path, *config_path;
};

static const char *environment(const char *name)
{
    const char *value = g_getenv(name);

    return value && *value ? value : NULL;
}

/* --- files --- */

static char *file_path(const char *variable, const char *name)
{
    return environment(variable) ? g_strdup(environment(variable))
                                 : g_build_filename(g_get_home_dir(), ".aws", name, NULL);
}

/* ";" begins a comment there too, which GKeyFile does not know. */
static void mark_comments(char *text)
{
    for (char *line = text; line; line = strchr(line, '\n')) {
        line += strspn(line, " \t\r\n");
        if (*line == ';')
            *line = '#';
    }
}

/* An empty file when PATH is not there. NULL and *ERROR when it cannot be read. */
static GKeyFile *load_file(const char *path, GError **error)
{
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autoptr(GError) why = NULL;
    g_autofree char *text = NULL;
    bool parsed = false;
    gsize size;

    if (g_file_get_contents(path, &text, &size, &why)) {
        mark_comments(text);
        parsed = g_key_file_load_from_data(file, text, size, G_KEY_FILE_NONE, &why);
        explicit_bzero(text, size);
    }
    if (parsed || g_error_matches(why, G_FILE_ERROR, G_FILE_ERROR_NOENT) ||
        g_error_matches(why, G_FILE_ERROR, G_FILE_ERROR_NOTDIR))
        return g_steal_pointer(&file);
    if (why->domain == G_FILE_ERROR)
        error_set(error, EACCES, "%s: %s", path, why->message);
    else /* the message would quote a line, and with it perhaps a secret */
        error_set(error, EINVAL, "%s: not in the form of an INI file", path);
    return NULL;
}

static char *file_value(GKeyFile *file, const char *group, const char *name)
{
    g_autofree char *value = g_key_file_get_value(file, group, name, NULL);

    if (value)
        g_strstrip(value);
    return value && *value ? g_steal_pointer(&value) : NULL;
}

static void wipe(char **secret)
{
    if (*secret)
        explicit_bzero(*secret, strlen(*secret));
    g_clear_pointer(secret, g_free);
}

static void take_missing(GKeyFile *file, const char *group, struct credentials *found)
{
    bool has_keys = found->access_key && found->secret_key;

    if (!has_keys) {
        g_free(found->access_key);
        wipe(&found->secret_key);
        wipe(&found->session_token);
        found->access_key = file_value(file, group, "aws_access_key_id");
        found->secret_key = file_value(file, group, "aws_secret_access_key");
        found->session_token = file_value(file, group, "aws_session_token");
    }
    if (!found->region)
        found->region = file_value(file, group, "region");
}

/* --- providers: each fills what it knows and what is not there yet --- */

static bool from_environment(const struct search *search, struct credentials *found, GError **error)
{
    const char *access_key = environment("AWS_ACCESS_KEY_ID");
    const char *secret_key = environment("AWS_SECRET_ACCESS_KEY");

    if (!found->region)
        found->region = g_strdup(environment("AWS_REGION"));
    if (!found->region)
        found->region = g_strdup(environment("AWS_DEFAULT_REGION"));
    if (search->is_named || found->access_key || !access_key || !secret_key)
        return true;
    found->access_key = g_strdup(access_key);
    found->secret_key = g_strdup(secret_key);
    found->session_token = g_strdup(environment("AWS_SESSION_TOKEN"));
    return true;
}

static bool from_credentials_file(const struct search *search, struct credentials *found,
                                  GError **error)
{
    g_autoptr(GKeyFile) file = load_file(search->credentials_path, error);

    if (file)
        take_missing(file, search->profile, found);
    return file != NULL;
}

static bool from_config_file(const struct search *search, struct credentials *found, GError **error)
{
    g_autofree char *group = g_strconcat("profile ", search->profile, NULL);
    g_autoptr(GKeyFile) file = load_file(search->config_path, error);

    if (!file)
        return false;
    take_missing(file, group, found);
    if (g_str_equal(search->profile, "default"))
        take_missing(file, search->profile, found);
    return true;
}

static bool (*const providers[])(const struct search *search, struct credentials *found,
                                 GError **error) = {
    from_environment,
    from_credentials_file,
    from_config_file,
};

/* --- the search --- */

static bool is_printable(const char *text)
{
    for (; *text; text++)
        if (!g_ascii_isgraph(*text))
            return false;
    return true;
}

/* What goes into headers must not be able to end one. */
static bool check(const struct search *search, const struct credentials *found, GError **error)
{
    if (!found->access_key || !found->secret_key)
        return error_set(error, EACCES,
                         "no credentials for S3: looked %s profile \"%s\" of %s and %s; set "
                         "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or run \"aws configure\"",
                         search->is_named ? "in" : "in the environment and in", search->profile,
                         search->credentials_path, search->config_path);
    if (!is_printable(found->access_key) || !is_printable(found->secret_key) ||
        (found->session_token && !is_printable(found->session_token)))
        return error_set(error, EINVAL, "the credentials for S3 hold a space or control character");
    if (!is_printable(found->region) || strchr(found->region, '/'))
        return error_set(error, EINVAL, "\"%s\" is no name of a region", found->region);
    return true;
}

bool credentials_load(const char *profile, const char *region, struct credentials *credentials,
                      GError **error)
{
    const char *variable = environment("AWS_PROFILE");
    struct search search = {.profile = profile    ? profile
                                       : variable ? variable
                                                  : "default",
                            .is_named = profile != NULL,
                            .credentials_path =
                                file_path("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
                            .config_path = file_path("AWS_CONFIG_FILE", "config")};
    bool ok = true;

    *credentials = (struct credentials){.region = g_strdup(region)};
    for (unsigned i = 0; ok && i < G_N_ELEMENTS(providers); i++)
        if (!credentials->access_key || !credentials->secret_key || !credentials->region)
            ok = providers[i](&search, credentials, error);
    if (!credentials->region)
        credentials->region = g_strdup(DEFAULT_REGION);
    ok = ok && check(&search, credentials, error);
    g_free(search.credentials_path);
    g_free(search.config_path);
    if (!ok)
        credentials_clear(credentials);
    return ok;
}

void credentials_clear(struct credentials *credentials)
{
    g_clear_pointer(&credentials->access_key, g_free);
    g_clear_pointer(&credentials->region, g_free);
    wipe(&credentials->secret_key);
    wipe(&credentials->session_token);
}
