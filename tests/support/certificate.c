#include "tests/support/certificate.h"

#include <glib.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#define DAY_S (24L * 60 * 60)

static X509 *make(EVP_PKEY *key, const char *name, int from_days, int to_days)
{
    X509 *certificate = X509_new();
    X509_NAME *subject = X509_get_subject_name(certificate);
    X509_EXTENSION *names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, name);

    g_assert(names && X509_set_version(certificate, 2) &&
             ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1) &&
             X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const guchar *)"scripted", -1,
                                        -1, 0) &&
             X509_set_issuer_name(certificate, subject) &&
             X509_gmtime_adj(X509_getm_notBefore(certificate), from_days * DAY_S) &&
             X509_gmtime_adj(X509_getm_notAfter(certificate), to_days * DAY_S) &&
             X509_set_pubkey(certificate, key) && X509_add_ext(certificate, names, -1) &&
             X509_sign(certificate, key, EVP_sha256()));
    X509_EXTENSION_free(names);
    return certificate;
}

SSL_CTX *certificate_context(const char *name, int from_days, int to_days, const char *path)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = make(key, name, from_days, to_days);
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());

    g_assert(SSL_CTX_use_certificate(context, certificate) == 1 &&
             SSL_CTX_use_PrivateKey(context, key) == 1);
    if (path) {
        FILE *file = fopen(path, "w");

        g_assert(file && PEM_write_X509(file, certificate) && fclose(file) == 0);
    }
    X509_free(certificate);
    EVP_PKEY_free(key);
    return context;
}
