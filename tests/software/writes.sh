# Commands that write. Each function is one test: it must fail with the message for EROFS.

cp_in_it() { cp plain/text.txt plain/copy.txt; }
cp_into_it() { cp /etc/passwd .; }
mv_in_it() { mv plain/text.txt plain/other.txt; }
rm_recursively() { rm -r plain; }
touch_it() { touch plain/text.txt; }
make_directories() { mkdir -p plain/new/one; }
append_in_the_shell() { echo more >>plain/text.txt; }
sed_in_place() { sed -i s/a/b/ plain/text.txt; }
dd_over_it() { dd if=/dev/zero of=plain/text.txt count=1 conv=notrunc; }
truncate_it() { truncate -s 0 plain/text.txt; }
link_it() { ln plain/text.txt plain/link; }
chmod_it() { chmod u+w plain/text.txt; }
rsync_into_it() { rsync /etc/passwd plain/; }
untar_into_it() { tar -xf archives/plain.tar -C model text.txt; }
unzip_into_it() { unzip -oq archives/plain.zip text.txt -d model; }
git_update_ref() { git -C project.git update-ref refs/heads/new older; }
