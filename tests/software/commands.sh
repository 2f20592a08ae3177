# Commands that people run on files. Each function is one test: bash -euo pipefail runs it in the folder, and its output must be the
# same on a mount as on the plain files. $OUT is an empty directory for output.

# --- find, read, copy, compare

sums() {
    find . -type f -print0 | sort -z | xargs -0 sha256sum
    cksum plain/* model/*
}

find_them() {
    find . -printf '%y %P\n' | sort
    find . -type f -printf '%s %P\n' | sort
    find . -empty -o -newermt 1970-01-02 -size +1M -print | sort
}

list_them() {
    ls -R
    ls -lR | awk '/^-/ { print $5, $9 }'
    stat -c '%n %s %F %h' plain/*
}

copy_sparse() {
    cp --sparse=always plain/holes.bin "$OUT/holes"
    cmp plain/holes.bin "$OUT/holes"
    stat -c '%s' "$OUT/holes"
}

copy_reflink() {
    cp --reflink=auto plain/noise.bin "$OUT"
    cmp plain/noise.bin "$OUT/noise.bin"
    sha256sum <"$OUT/noise.bin"
}

copy_archive() {
    cp -a --no-preserve=ownership package "$OUT"
    (cd "$OUT" && find . -type f -exec sha256sum {} + | sort)
}

dd_direct() {
    dd if=plain/noise.bin iflag=direct bs=64k status=none | sha256sum
    dd if=plain/noise.bin iflag=direct bs=4096 skip=300 count=9 status=none | sha256sum
}

dd_part() {
    dd if=plain/noise.bin iflag=skip_bytes,count_bytes bs=1M skip=1000001 count=1000003 status=none | sha256sum
}

split_it() { split -b 300k --filter sha256sum plain/noise.bin; }

sort_lines() {
    sort -r plain/text.txt | md5sum
    tac plain/text.txt | tail -n 3
    od -c model/config.json
}

tell_kinds() { file -b plain/* archives/*.zip archives/*.xz databases/*.sqlite; }

compare_them() {
    diff -q plain/small-02.txt plain/small-03.txt || diff -r plain plain
    comm -3 plain/small-05.txt plain/small-06.txt
    cmp plain/text.txt plain/noise.bin || true
}

# --- archives

tar_members() {
    tar -tf archives/plain.tar
    tar -xOf archives/plain.tar noise.bin | sha256sum
    tar -tzf archives/plain.tar.gz
}

tar_of_it() {
    tar --sort=name --owner=0 --group=0 --mode=644 --mtime=@0 -cf - plain package | sha256sum
    tar --sparse -cf - plain | tar -xOf - plain/holes.bin | sha256sum
}

unzip_members() {
    unzip -tq archives/plain.zip
    unzip -p archives/plain.zip noise.bin | sha256sum
    unzip -Z1 archives/plain.zip
}

zip_of_it() {
    zip -qrX "$OUT/all.zip" plain package
    unzip -qd "$OUT" "$OUT/all.zip"
    diff -r plain "$OUT/plain"
    unzip -Z1 "$OUT/all.zip" | sort
}

decompress() {
    xz -dc archives/text.txt.xz | sha256sum
    gzip -dc archives/plain.tar.gz | sha256sum
    gzip -c plain/text.txt | gzip -dc | wc -l
}

# --- mirrors

rsync_twice() {
    rsync -a --no-owner --no-group --chmod=u+w plain package "$OUT"
    diff -r plain "$OUT/plain"
    echo "again:"
    rsync -a --no-owner --no-group --chmod=u+w --itemize-changes plain package "$OUT"
}

rsync_differences() {
    cp plain/text.txt "$OUT/noise.bin"
    chmod u+w "$OUT/noise.bin"
    rsync --ignore-times --inplace --no-whole-file plain/noise.bin "$OUT"
    sha256sum <"$OUT/noise.bin"
}

rsync_compare_dest() {
    cp plain/small-03.txt "$OUT/small-04.txt"
    cp plain/text.txt "$OUT"
    rsync -rc --compare-dest="$PWD/plain" "$OUT/" "$OUT/other"
    ls "$OUT/other"
}

# --- a bare git repo

git_log() {
    git -C project.git log --all --format=%s
    git -C project.git show --stat older
    git -C project.git count-objects -v | grep -v ^size: # disk usage differs
}

git_fsck() {
    cd project.git
    git fsck --full --strict 2>&1
    git verify-pack -v objects/pack/*.idx | sort
}

git_clone() {
    git clone -q "file://$PWD/project.git" "$OUT/clone"
    git -C "$OUT/clone" rev-parse HEAD
    sha256sum <"$OUT/clone/noise.bin"
}

git_clone_shared() {
    git clone -q --shared project.git "$OUT/clone"
    git -C "$OUT/clone" fsck
    git -C "$OUT/clone" log --format=%h
}

git_fetch() {
    local source="$PWD/project.git"
    git init -q "$OUT/new"
    cd "$OUT/new"
    git fetch -q "$source" older:here
    git rev-parse here
}

git_archive() {
    git -C project.git archive --format=tar main | tar -xOf - text.txt | sha256sum
    git -C project.git grep -c 'line 77' main
}

# --- JavaScript

node_streams() {
    node - <<'END'
const crypto = require("crypto"), fs = require("fs"), path = "plain/noise.bin";
const sum = (data) => crypto.createHash("sha256").update(data).digest("hex");
(async () => {
  const hash = crypto.createHash("sha256"), part = [];
  for await (const piece of fs.createReadStream(path, { highWaterMark: 70001 })) hash.update(piece);
  for await (const piece of fs.createReadStream(path, { start: 999999, end: 1234567 })) part.push(piece);
  console.log(hash.digest("hex"), sum(Buffer.concat(part)), sum(await fs.promises.readFile(path)), sum(fs.readFileSync(path)));
  console.log((await fs.promises.readdir("plain")).sort().join());
  await fs.promises.copyFile("plain/text.txt", process.env.OUT + "/copy");
  console.log(sum(fs.readFileSync(process.env.OUT + "/copy")));
})();
END
}
