"""Recipes of shell tools that make, change and look at files."""

from __future__ import annotations

from tests.mount.programs.recipe import Recipe

EDITS = [
    Recipe(
        "sed, perl and awk edit in place",
        """
        sed -i 's/verse/stanza/' words.txt
        sed -i.bak '1,10d' words.txt
        sed -i '$a the end' words.txt
        perl -pi -e 's/chorus/refrain/g' words.txt
        awk '{print $2, $1}' words.txt > words.tmp && mv words.tmp words.txt
        tail -3 words.txt; wc -l words.txt words.txt.bak
        """,
        needs=("words.txt",),
    ),
    Recipe(
        "sort in place, uniq, join",
        """
        sort -o words.txt words.txt
        sort -u -k1,1 -o words.txt words.txt
        sort -S 64k -T . -k2,2n -o sorted.txt words.txt
        uniq -c sorted.txt; comm -12 words.txt words.txt | wc -l
        """,
        needs=("words.txt",),
    ),
    Recipe(
        "dd writes into the middle",
        """
        dd if=/dev/zero of=tone.wav bs=1 seek=44 count=3000 conv=notrunc status=none
        dd if=voice.wav of=tone.wav bs=1k seek=20 count=7 conv=notrunc,fsync status=none
        dd if=voice.wav of=tone.wav oflag=append conv=notrunc status=none
        dd if=long.wav of=piece bs=4096 skip=100 count=50 status=none
        dd if=long.wav of=direct bs=4096 count=64 oflag=direct iflag=direct status=none
        dd if=/dev/zero of=sparse bs=1 count=1 seek=1000000 status=none
        dd if=words.txt of=synced bs=777 oflag=sync status=none
        dd if=words.txt of=cut seek=2 bs=100 count=3 status=none
        stat -c '%n %s' *
        """,
        needs=("tone.wav", "voice.wav", "long.wav", "words.txt"),
    ),
    Recipe(
        "truncate and fallocate",
        """
        truncate -s 100000 tone.wav; truncate -s +5000 tone.wav; truncate -s -3000 voice.wav
        truncate -s 0 words.txt; truncate -s 1M new; truncate -r new reference
        fallocate -l 200000 room; stat -c '%n %s' *
        tail -c 5001 tone.wav | xxd -l 32 2>/dev/null || true
        """,
        needs=("tone.wav", "voice.wav", "words.txt"),
    ),
    Recipe(
        "split, cat and cmp",
        """
        mkdir parts; split -b 700k -d long.wav parts/p.; split -n l/4 words.txt parts/w.
        cat parts/p.* > again.wav; cmp long.wav again.wav && echo same
        cat parts/w.* | cmp - words.txt; ls -s --block-size=1 parts | wc -l
        csplit -s -f parts/c. words.txt 500 1000; wc -c parts/c.*
        """,
        needs=("long.wav", "words.txt"),
    ),
    Recipe(
        "redirections",
        """
        echo one > f; echo two >> f; cat f f > g; : > empty
        exec 3<>f; read -r line <&3; echo "was $line" >&3; exec 3>&-; cat f
        (set -C; echo x > f) 2>/dev/null || echo 'not over it'
        cat > here <<END
text $((6 * 7))
END
        echo more | tee -a here log > /dev/null; { echo a; echo b >&2; } > both 2>&1
        cat f g here log both; wc -c empty
        """,
    ),
    Recipe(
        "many appenders of one log",
        """
        for n in 1 2 3 4; do (for m in $(seq 50); do echo "writer $n line $m" >> log; done) & done; wait
        wc -l < log; sort -o log log; md5sum < log
        """,
    ),
    Recipe(
        "ed and patch",
        """
        cp words.txt old.txt
        printf '%s\\n' '3d' '5,8j' '1i' 'first' . w q | ed -s words.txt
        diff -u --label old --label new old.txt words.txt > change.patch || true
        patch -s old.txt < change.patch; cmp old.txt words.txt && echo patched
        patch -s -R -b words.txt < change.patch; ls
        """,
        needs=("words.txt",),
    ),
    Recipe(
        "an editor's way to save: the old one aside, the new one in its place",
        """
        mv words.txt words.txt~; sed 's/bridge/middle/' words.txt~ > words.txt; chmod --reference=words.txt~ words.txt
        cp -p words.txt .words.txt.swp; echo changed >> words.txt; rm .words.txt.swp; ls -A; tail -1 words.txt
        """,
        needs=("words.txt",),
    ),
    Recipe(
        "logrotate by copying and truncating",
        """
        exec 3>>log
        for n in $(seq 200); do echo "line $n" >&3; done
        cp log log.1; truncate -s 0 log
        for n in 201 202; do echo "line $n" >&3; done
        exec 3>&-; wc -l log log.1; cat log
        """,
    ),
]

LOOKING = [
    Recipe(
        "checksums are made and checked",
        """
        sha256sum *.* > sums; sha256sum -c sums; md5sum tone.wav words.txt | tee md5
        echo x >> words.txt; sha256sum --quiet -c sums 2>/dev/null || echo "code $?"
        b2sum long.wav; cksum tone.wav
        """,
        needs=("tone.wav", "words.txt", "long.wav"),
    ),
    Recipe(
        "find and xargs",
        """
        mkdir -p a/b/c d; for n in $(seq 30); do echo $n > "a/b/file $n"; done; : > a/b/c/empty
        find . -type f -size -2c | sort; touch -d '1 hour ago' 'a/b/file 1'; find . -type f -newer 'a/b/file 1' -name '*3*' | wc -l; touch 'a/b/file 1'
        find a -name 'file 2*' -print0 | xargs -0 -n 3 cat | sort -n; find . -empty | sort
        find a -name '*1*' -delete; find . -type d -links +0 | sort; find . -perm 644 | wc -l
        find . -type f -exec grep -l 2 {} + | sort; find -L . -maxdepth 1 -mmin -60 | wc -l
        """,
    ),
    Recipe(
        "ls, du, df and stat say what is there",
        """
        mkdir -p d/e; cp tone.wav d/e/; ln -s ../tone.wav d/link; : > empty
        ls -l --time-style=+ --color=never tone.wav d | grep '^[-l]' | tr -s ' '; ls -F . d; ls -S1 *.wav
        du -b --apparent-size tone.wav d/e/tone.wav; stat -c '%n %F %s %a %h' tone.wav empty d/link
        [ "$(du -k long.wav | cut -f1)" -gt 3000 ] && echo 'du counts blocks'
        df -P . | awk 'NR==2 {print ($2 >= $4 && $4 > 0)}'; df -i . | awk 'NR==2 {print ($2 != 0)}'
        [ "$(ls -i tone.wav)" = "$(stat -c '%i %n' tone.wav)" ] && echo 'inode numbers agree'
        """,
        needs=("tone.wav", "long.wav"),
    ),
    Recipe(
        "grep, file, head and tail",
        """
        grep -c verse words.txt; grep -rl verse . | sort; file -b tone.wav song.flac; head -c 4 *.wav
        tail -n 2 words.txt; tail -c 100 long.wav | md5sum; tac words.txt > "$SIDE/tac"; head -1 "$SIDE/tac"; od -A d -t x1 -N 16 tone.wav
        """,
        needs=("tone.wav", "song.flac", "words.txt", "long.wav"),
    ),
    Recipe(
        "tail -f follows while it grows, and by name when it is replaced",
        """
        : > log
        (for n in $(seq 10); do echo "line $n" >> log; sleep 0.02; done) & writer=$!
        tail -n +1 -s 0.05 -f --pid=$writer log > "$SIDE/followed"; wait $writer
        cmp log "$SIDE/followed" && echo followed
        timeout 20 tail -n +1 -s 0.05 -F log > "$SIDE/by-name" 2>/dev/null & follower=$!
        until [ -s "$SIDE/by-name" ]; do sleep 0.02; done
        echo anew > log.new; mv log.new log
        until grep -q anew "$SIDE/by-name"; do sleep 0.05; done
        kill $follower; echo replaced
        """,
    ),
]

ATTRIBUTES = [
    Recipe(
        "touch sets times",
        """
        echo x > a; touch -d '2001-02-03 04:05:06.123456789' a; touch -r a b; touch -m -d @1234567890.5 c
        touch -c not-there; touch -a -d '2030-01-01' d; mkdir e; touch -d '1999-12-31 23:59:59' e
        touch -h -d '2002-02-02' a; stat -c '%n %.Y' a b c e; touch -d '2 hours ago' f; [ a -ot f ] && echo older; rm f
        touch -d '1969-07-20 20:17:40' moon; stat -c '%Y' moon; [ b -nt c ] || echo 'not newer'
        """,
    ),
    Recipe(
        "chmod, umask and set-id bits",
        """
        echo x > a; chmod 600 a; chmod u+x,g+r a; (umask 077; echo y > b; mkdir c); chmod -R a+rX c
        mkdir -m 1777 shared; chmod 4755 a; stat -c '%n %a' a b c shared; echo more >> a; stat -c %a a
        chmod 444 a; chmod +t c; stat -c '%A' a b c shared; test -x b || echo 'not executable'
        """,
    ),
    Recipe(
        "install",
        """
        install -m 600 words.txt private; install -d -m 750 deep/er; install -D -m 644 words.txt x/y/z.txt
        install -p -m 755 words.txt kept; install -C -m 600 words.txt private; install -b words.txt private
        stat -c '%n %a' private private~ deep/er x/y/z.txt kept
        """,
        needs=("words.txt",),
    ),
    Recipe(
        "symbolic links",
        """
        mkdir d; echo x > d/f; ln -s d/f link; ln -s ../d/f d/up; ln -s nowhere dangling; ln -s d dir; ln -s loop loop
        cat link d/up dir/f; readlink link dangling; readlink -f dir/f | sed "s|$PWD|.|"; [ -e dangling ] || echo dangles
        cat loop 2>/dev/null || echo 'too many'; echo y >> link; cat d/f; ln -sfn d/f dir2; ln -sf d link; ls link
        cp -L dir/f copied; cp -P dangling kept; rm dir; ls d; ln -s "$PWD/d/f" absolute; cat absolute; rm absolute
        find . -type l | sort; rm loop; find -L . -type f | sort
        """,
    ),
    Recipe(
        "names of all kinds",
        """
        for name in 'with space' 'percent%41' 'plus+sign' 'question?' 'hash#tag' 'quote'"'"'s' 'do"uble' 'new
line' 'tab	x' 'amp&<>;' '-dash' '..dots' '.hidden' 'ünïcödé' '日本語' '🎵 song' 'a=b' 'co:lon' '[br]' \\
            '*' '~' '$HOME' 'UPPER' 'upper' "$(printf '%0255d' 7)"; do printf %s "$name" > "./$name"; done
        ls -A | LC_ALL=C sort; for f in ./*; do cat "$f"; echo; done | LC_ALL=C sort | md5sum
        mkdir 'dir ü'; mv -- -dash 'dir ü/'; ls 'dir ü'; rm -- '*'; ls -A | wc -l
        """,
    ),
    Recipe(
        "a deep tree is made and removed",
        """
        mkdir -p a/b/c/d/e/f/g/h/i/j/k/l/m/n; for d in a a/b/c a/b/c/d/e/f/g; do echo $d > $d/file; done
        mkdir -p a/b/c/x/y; rmdir a/b/c/x/y; rmdir a 2>/dev/null || echo 'not empty'; rmdir -p a/b/c/x 2>/dev/null || true
        cd a/b/c/d/e/f/g; echo here > ../../up; cd - > /dev/null; find . | sort; mkdir gone; touch gone/{1..40}
        rm -r gone; [ -e gone ] || echo removed; mkdir a 2>/dev/null || echo exists
        """,
    ),
]

LOCKS_AND_OPEN_FILES = [
    Recipe(
        "flock around a counter",
        """
        echo 0 > counter
        for n in 1 2 3 4; do (for m in $(seq 10); do
            flock lock sh -c 'echo $(($(cat counter) + 1)) > counter'; done) & done; wait
        cat counter; exec 9>lock; flock -n 9; flock -n lock true || echo held; flock -s -u 9; flock -n lock echo free
        """,
    ),
    Recipe(
        "a file that is unlinked while it is open",
        """
        exec 3< words.txt 4>> words.txt 5<> scratch; rm words.txt scratch
        head -1 <&3; echo added >&4; echo kept >&5; tail -1 <&3; ls; cat /proc/self/fd/5
        echo new > words.txt; exec 3<&- 4>&- 5>&-; cat words.txt
        """,
        needs=("words.txt",),
    ),
    Recipe(
        "programs are run from there",
        """
        printf '#!/bin/sh\\necho "ran with $1"\\n' > tool; chmod +x tool; ./tool one; cp /bin/true t; ./t
        mkdir lib; echo 'NAME = "from here"' > lib/mod.py; PYTHONPATH=lib "$PYTHON" -B -c 'import mod; print(mod.NAME)'
        chmod -x tool; ./tool two 2>/dev/null || echo "code $?"; . ./tool three
        """,
    ),
    Recipe(
        "make builds only what is older",
        """
        printf 'all: a.flac b.flac\\n%%.flac: %%.wav\\n\\t@flac -s -f $< -o $@ && echo built $@\\n' > Makefile
        sox -R tone.wav a.wav trim 0 0.1; sox -R tone.wav b.wav trim 0.5 0.1; make -s; make -s -q && echo 'nothing to do'
        touch -d '2026-01-01' a.wav b.wav a.flac; touch b.flac; make -s -q || echo "code $?"
        touch a.flac; make -s -q && echo 'nothing to do'; sleep 0.02; echo >> b.wav; make -s
        """,
        needs=("tone.wav",),
    ),
]

RECIPES = [*EDITS, *LOOKING, *ATTRIBUTES, *LOCKS_AND_OPEN_FILES]
