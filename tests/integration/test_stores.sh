#!/bin/bash
# The conformance suite and a tree's round trip on every store there is: a directory, and the
# servers given by DSTACK_TEST_RGW and DSTACK_TEST_SWIFT (each with _KEY, _SECRET and _BUCKET). With
# DSTACK_TEST_RGW_TLS (an https URL of the same gateway) and DSTACK_TEST_RGW_CACERT, over TLS too.
# usage: test_stores.sh DIRECTORY-OF-PROGRAMS
set -euo pipefail
bin=$1
# How many files of 1 KiB, and how large the large one is on the gateway.
files=${DSTACK_TEST_FILES:-10000} large_mib=${DSTACK_TEST_LARGE_MIB:-3072}
# Not in /tmp, which may keep no extended attributes.
base=$(mktemp -d /var/tmp/dstack-stores-XXXXXX)
trap 'rm -rf "$base"' EXIT
trap 'exit 130' INT TERM
mkdir "$base/root" "$base/from"

timed() { # WHAT COMMAND…
    local what=$1 start_us=${EPOCHREALTIME/[.,]/}
    shift
    "$@"
    echo "$what: $(((${EPOCHREALTIME/[.,]/} - start_us) / 1000)) ms"
}

# Every sort of name and of file that a local directory can hold, and many small files.
make_tree() (
    cd "$base/from"
    mkdir -p 'a b/c=d' empty.d/below small 'dir+plus*' '%2F' ...
    : >empty
    touch -d '1969-12-31 23:59:58.123456789' empty
    ln -s '../nowhere/at all' dangling
    for name in 'a b/c=d/+*%41 x' 'ü' $'日本\t語' 'back\slash' ' lead and trail ' $'new\nline' $'\001' \
        '100%' '%2e%2e' '%2F/%2f' 'dir+plus*/?&#;:@' "'\"<>" .../..x .hidden '~' -x; do
        echo "$name" >"./$name"
    done
    echo x >run.sh
    chmod 755 run.sh
    touch -d '2001-02-03 04:05:06.789012345' run.sh
    ln -s run.sh link
    python3 - "$files" <<'END'
import sys
for i in range(int(sys.argv[1])):
    with open(f"small/{i}", "w") as file:
        file.write(f"{i:8}" * 128)
END
)

# No two pages of it are equal: a byte at a wrong offset shows.
make_large() { # MIB
    head -c "$1"M /dev/zero | openssl enc -aes-128-ctr -K 00 -iv 00 2>/dev/null >"$base/from/large"
}

describe() {
    (cd "$1" && find . ! -type d -printf '%P %m %s %T@ %l %y\0' | sort -z)
}

round_trip() { # NAME URL ENDPOINT
    rm -rf "$base/to"
    timed "$1: up" "$bin/store_transfer" up "$base/from" "$2" "$3" "tree-$$/"
    timed "$1: down" "$bin/store_transfer" down "$base/to" "$2" "$3" "tree-$$/"
    describe "$base/from" >"$base/1"
    describe "$base/to" >"$base/2"
    cmp "$base/1" "$base/2"
    diff -r --no-dereference "$base/from" "$base/to"
    timed "$1: deleted" "$bin/store_transfer" rm - "$2" "$3" "tree-$$/"
}

# A machine's clock that is two hours off. (The address sanitizer and libfaketime exclude each other.)
off_clock() { # URL ENDPOINT
    local off
    if ldd "$bin/store_conformance" | grep -q libasan; then return; fi
    for off in -2h +2h; do
        FAKETIME_DONT_FAKE_MONOTONIC=1 timeout 60 faketime -f $off "$bin/store_conformance" "$1" "$2"
    done
}

# Over TLS; and with buckets in the host, where curl resolves names below localhost by itself.
tls_and_hosts() { # URL ENDPOINT
    local port=${DSTACK_TEST_RGW##*:} tls_port=${2##*:}
    export AWS_CA_BUNDLE=$DSTACK_TEST_RGW_CACERT
    "$bin/store_conformance" "$1" "$2"
    if curl -s -o "$base/curl" "http://tests.s3.localhost:$port/"; then
        "$bin/store_conformance" "$1" "http://s3.localhost:$port" virtual
        "$bin/store_conformance" "$1" "https://s3.localhost:$tls_port" virtual
    else
        echo "buckets in the host: not tested, this curl does not resolve tests.s3.localhost"
    fi
    unset AWS_CA_BUNDLE
}

one_store() { # NAME URL ENDPOINT
    "$bin/store_conformance" "$2" ${3:+"$3"}
    [ -z "${3:-}" ] || "$bin/store_conformance" "$2" "$3" unsigned
    round_trip "$@"
    echo "$1: the tree came back identical"
}

make_tree
make_large 300
one_store file "file://$base/root" ""
if [ -n "${DSTACK_TEST_RGW:-}" ]; then
    export AWS_ACCESS_KEY_ID=$DSTACK_TEST_RGW_KEY AWS_SECRET_ACCESS_KEY=$DSTACK_TEST_RGW_SECRET
    url=s3://$DSTACK_TEST_RGW_BUCKET
    make_large "$large_mib"
    one_store rgw "$url" "$DSTACK_TEST_RGW"
    off_clock "$url" "$DSTACK_TEST_RGW"
    [ -z "${DSTACK_TEST_RGW_TLS:-}" ] || tls_and_hosts "$url" "$DSTACK_TEST_RGW_TLS"
fi
if [ -n "${DSTACK_TEST_SWIFT:-}" ]; then
    export AWS_ACCESS_KEY_ID=$DSTACK_TEST_SWIFT_KEY AWS_SECRET_ACCESS_KEY=$DSTACK_TEST_SWIFT_SECRET
    url=s3://$DSTACK_TEST_SWIFT_BUCKET
    make_large 100
    find "$base/from/small" -name '*[1-9]' -delete # it takes few requests a second
    one_store swift "$url" "$DSTACK_TEST_SWIFT"
    off_clock "$url" "$DSTACK_TEST_SWIFT"
fi
