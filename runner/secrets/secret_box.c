#include "runner/secrets/secret_box.h"
#include "config/autofd.h"
#include "config/error.h"
#include "config/paths.h"
#include <glib/gstdio.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <string.h>
#include <sys/stat.h>

enum { VERSION = 1, NONCE_BYTES = 12, TAG_BYTES = 16, HEAD_BYTES = 1 + NONCE_BYTES };

typedef EVP_CIPHER_CTX Cipher;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Cipher, EVP_CIPHER_CTX_free)

void secret_free(char *text)
{
    if (text)
        OPENSSL_cleanse(text, strlen(text));
    g_free(text);
}

/* --- the key --- */

static bool parse_key(const char *text, uint8_t key[SECRET_KEY_BYTES], const char *where,
                      GError **error)
{
    if (strlen(text) != (size_t)2 * SECRET_KEY_BYTES)
        return error_set(error, EINVAL, "%s is not a key of 64 hexadecimal digits", where);
    for (unsigned i = 0; i < SECRET_KEY_BYTES; i++) {
        int high = g_ascii_xdigit_value(text[2 * i]), low = g_ascii_xdigit_value(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return error_set(error, EINVAL, "%s is not a key of 64 hexadecimal digits", where);
        key[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* A whole key or none: it is written under another name first. Somebody else's is as good. */
static bool make_key(const char *path, GError **error)
{
    g_autofree char *temp = g_strconcat(path, ".XXXXXX", NULL);
    g_autofree char *home = g_path_get_dirname(path);
    uint8_t key[SECRET_KEY_BYTES];
    char text[2 * SECRET_KEY_BYTES + 2];
    g_auto(fd_t) fd = -1;
    bool fine;

    if (RAND_bytes(key, sizeof key) != 1)
        return error_set(error, EIO, "there are no random numbers for a key");
    for (unsigned i = 0; i < SECRET_KEY_BYTES; i++)
        g_snprintf(text + 2 * (size_t)i, 3, "%02x", key[i]);
    g_strlcat(text, "\n", sizeof text);
    OPENSSL_cleanse(key, sizeof key);
    if (g_mkdir_with_parents(home, 0700) != 0)
        return error_set_errno(error, errno, "make %s", home);
    fd = g_mkstemp_full(temp, O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set_errno(error, errno, "make %s", temp);
    fine = write(fd, text, strlen(text)) == (ssize_t)strlen(text) && fsync(fd) == 0 &&
           (link(temp, path) == 0 || errno == EEXIST);
    if (!fine)
        error_set_errno(error, errno, "write %s", path);
    OPENSSL_cleanse(text, sizeof text);
    g_unlink(temp);
    return fine;
}

static bool read_key(const char *path, uint8_t key[SECRET_KEY_BYTES], GError **error)
{
    char text[256] = "";
    g_auto(fd_t) fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    ssize_t got;
    bool fine;

    if (fd < 0 && errno == ENOENT)
        return error_set(error, ENOENT,
                         "this machine has no key for secrets: copy %s from where they were added, "
                         "or set " SECRETS_KEY_VARIABLE,
                         path);
    if (fd < 0 || fstat(fd, &st) != 0)
        return error_set_errno(error, errno, "read %s", path);
    if (st.st_mode & 077)
        return error_set(error, EACCES, "%s can be read by others: chmod 600 it", path);
    got = read(fd, text, sizeof text - 1);
    if (got < 0)
        return error_set_errno(error, errno, "read %s", path);
    g_strchomp(text);
    fine = parse_key(text, key, path, error);
    OPENSSL_cleanse(text, sizeof text);
    return fine;
}

bool secret_key_load(uint8_t key[SECRET_KEY_BYTES], bool make, GError **error)
{
    const char *given = g_getenv(SECRETS_KEY_VARIABLE);
    g_autofree char *path = dstack_home_path("secrets.key");

    if (given && *given)
        return parse_key(given, key, SECRETS_KEY_VARIABLE, error);
    if (make && !g_file_test(path, G_FILE_TEST_EXISTS) && !make_key(path, error))
        return false;
    return read_key(path, key, error);
}

void secret_key_forget(uint8_t key[SECRET_KEY_BYTES])
{
    OPENSSL_cleanse(key, SECRET_KEY_BYTES);
}

/* --- the box --- */

/* Repo and name, each with the zero byte behind it: no two pairs look alike. */
static bool add_names(EVP_CIPHER_CTX *cipher, const char *repo, const char *name)
{
    int size;

    return EVP_CipherUpdate(cipher, NULL, &size, (const uint8_t *)repo, (int)strlen(repo) + 1) &&
           EVP_CipherUpdate(cipher, NULL, &size, (const uint8_t *)name, (int)strlen(name) + 1);
}

static EVP_CIPHER_CTX *begin(const uint8_t key[SECRET_KEY_BYTES], const uint8_t *nonce, int seal,
                             const char *repo, const char *name)
{
    g_autoptr(Cipher) cipher = EVP_CIPHER_CTX_new();

    if (!cipher || !EVP_CipherInit_ex(cipher, EVP_aes_256_gcm(), NULL, key, nonce, seal) ||
        !add_names(cipher, repo, name))
        return NULL;
    return g_steal_pointer(&cipher);
}

uint8_t *secret_seal(const uint8_t key[SECRET_KEY_BYTES], const char *repo, const char *name,
                     const char *value, size_t *size, GError **error)
{
    size_t length = strlen(value);
    g_autofree uint8_t *box = g_malloc(HEAD_BYTES + length + TAG_BYTES);
    g_autoptr(Cipher) cipher = NULL;
    int put = 0, rest = 0;

    box[0] = VERSION;
    if (RAND_bytes(box + 1, NONCE_BYTES) == 1)
        cipher = begin(key, box + 1, 1, repo, name);
    if (!cipher ||
        !EVP_CipherUpdate(cipher, box + HEAD_BYTES, &put, (const uint8_t *)value, (int)length) ||
        !EVP_CipherFinal_ex(cipher, box + HEAD_BYTES + put, &rest) ||
        !EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, box + HEAD_BYTES + length)) {
        error_set(error, EIO, "secret %s could not be encrypted", name);
        return NULL;
    }
    *size = HEAD_BYTES + length + TAG_BYTES;
    return g_steal_pointer(&box);
}

char *secret_unseal(const uint8_t key[SECRET_KEY_BYTES], const char *repo, const char *name,
                    const void *data, size_t size, GError **error)
{
    const uint8_t *box = data;
    size_t length = size - HEAD_BYTES - TAG_BYTES;
    g_autoptr(Cipher) cipher = NULL;
    int put = 0, rest = 0;
    char *value;

    if (size < HEAD_BYTES + TAG_BYTES || size > INT_MAX || box[0] != VERSION) {
        error_set(error, EBADMSG, "secret %s: not one that this dstack wrote", name);
        return NULL;
    }
    value = g_malloc0(length + 1);
    cipher = begin(key, box + 1, 0, repo, name);
    if (cipher && EVP_CipherUpdate(cipher, (uint8_t *)value, &put, box + HEAD_BYTES, (int)length) &&
        EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_SET_TAG, TAG_BYTES,
                            (uint8_t *)box + HEAD_BYTES + length) &&
        EVP_CipherFinal_ex(cipher, (uint8_t *)value + put, &rest) && strlen(value) == length)
        return value;
    OPENSSL_cleanse(value, length);
    g_free(value);
    error_set(
        error, EBADMSG,
        "secret %s cannot be decrypted: it was added with another key, or changed in the store",
        name);
    return NULL;
}
