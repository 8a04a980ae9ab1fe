#!/bin/sh
# The conformance suite and a tree's round trip on every store there is: a directory, and the
# servers given by DSTACK_TEST_RGW and DSTACK_TEST_SWIFT (each with _KEY, _SECRET and _BUCKET).
# usage: test_stores.sh DIRECTORY-OF-PROGRAMS
set -eu
bin=$1
# Not in /tmp, which may keep no extended attributes.
base=$(mktemp -d /var/tmp/dstack-stores-XXXXXX)
trap 'rm -rf "$base"' EXIT
trap 'exit 130' INT TERM
mkdir "$base/root" "$base/from"

(
    cd "$base/from"
    mkdir -p 'a b/c=d' empty.d small
    : > empty
    echo x > run.sh
    chmod 755 run.sh
    touch -d '2001-02-03 04:05:06.789012345' run.sh
    ln -s run.sh link
    echo 1 > 'a b/c=d/+*%41 x'
    echo 3 > 'ü'
    truncate -s 300M large
    printf middle | dd of=large bs=1 seek=150000000 conv=notrunc 2> /dev/null
    i=0
    while [ $i -lt "${DSTACK_TEST_FILES:-2000}" ]; do
        i=$((i + 1))
        echo "$i" > small/$i
    done
)

describe() {
    (cd "$1" && find . ! -type d -printf '%P %m %s %T@ %l %y\n' | sort)
}

one_store() { # URL ENDPOINT
    "$bin/store_conformance" "$1" ${2:+"$2"}
    rm -rf "$base/to"
    "$bin/store_transfer" up "$base/from" "$1" "$2" "tree-$$/"
    "$bin/store_transfer" down "$base/to" "$1" "$2" "tree-$$/"
    describe "$base/from" > "$base/1"
    describe "$base/to" > "$base/2"
    cmp "$base/1" "$base/2"
    diff -r --no-dereference "$base/from" "$base/to"
    echo "$1: the tree came back identical"
}

# A machine's clock that is two hours off. (The address sanitizer and libfaketime exclude each other.)
off_clock() { # URL ENDPOINT
    ldd "$bin/store_conformance" | grep -q libasan && return
    for off in -2h +2h; do
        FAKETIME_DONT_FAKE_MONOTONIC=1 timeout 60 faketime -f $off "$bin/store_conformance" "$1" "$2"
    done
}

one_store "file://$base/root" ""
if [ -n "${DSTACK_TEST_RGW:-}" ]; then
    export AWS_ACCESS_KEY_ID="$DSTACK_TEST_RGW_KEY" AWS_SECRET_ACCESS_KEY="$DSTACK_TEST_RGW_SECRET"
    one_store "s3://$DSTACK_TEST_RGW_BUCKET" "$DSTACK_TEST_RGW"
    off_clock "s3://$DSTACK_TEST_RGW_BUCKET" "$DSTACK_TEST_RGW"
fi
if [ -n "${DSTACK_TEST_SWIFT:-}" ]; then
    export AWS_ACCESS_KEY_ID="$DSTACK_TEST_SWIFT_KEY"
    export AWS_SECRET_ACCESS_KEY="$DSTACK_TEST_SWIFT_SECRET"
    one_store "s3://$DSTACK_TEST_SWIFT_BUCKET" "$DSTACK_TEST_SWIFT"
    off_clock "s3://$DSTACK_TEST_SWIFT_BUCKET" "$DSTACK_TEST_SWIFT"
fi
