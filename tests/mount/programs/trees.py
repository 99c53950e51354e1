"""Recipes that copy, move, pack and keep whole trees; and the storage work of audio services."""

from __future__ import annotations

from tests.mount.programs.recipe import SAME_KIND, Recipe

_TREE = """
mkdir -p album/disc1 album/disc2 album/empty
for n in 1 2 3 4 5; do sox -R tone.wav album/disc1/$n.wav trim 0.$n 0.1; head -c ${n}0000 song.mp3 > "album/disc2/$n song.mp3"; done
echo notes > album/notes.txt; chmod 600 album/notes.txt; ln -s ../notes.txt album/disc1/notes
find album -exec touch -h -d '2024-05-06 07:08:09.123456' {} +
"""

COPIES = [
    Recipe(
        "cp -a",
        _TREE
        + """
        cp -a album copy; diff -r album copy && echo same; cp -a copy/. third; cp -au album/. third
        cp -r album plain; cp --reflink=auto long.wav reflinked.wav; cmp long.wav reflinked.wav
        cp --sparse=always long.wav sparse.wav; cp -p tone.wav kept.wav; cp -n song.mp3 kept.wav; cp -b tone.wav kept.wav
        cp long.wav "$SIDE/out"; cp "$SIDE/out" in; cp -t plain tone.wav song.mp3; ls -R plain
        cp tone.wav tone.wav 2>/dev/null || echo 'the same file'; cp -T album copy 2>/dev/null || echo 'no -r'
        """,
        needs=("tone.wav", "song.mp3", "long.wav"),
    ),
    Recipe(
        "mv between directories, over files, and across file systems",
        _TREE
        + """
        mkdir done; mv album/disc1/1.wav done/; mv album/disc1/[23].wav -t done; mv done/2.wav done/3.wav; ls done
        mv album/disc2 disc; mv disc done/; mv -n tone.wav done/1.wav; mv --backup=numbered song.mp3 done/1.wav
        mv done "$SIDE/done"; mv "$SIDE/done" back; mv album "$SIDE/album"; ls; mv "$SIDE/album" .
        mv back back 2>/dev/null || echo 'into itself'; mv album/notes.txt back/disc; mv -T back new; find . | sort
        """,
        needs=("tone.wav", "song.mp3"),
    ),
    Recipe(
        "rsync copies, and finds nothing more to do",
        _TREE
        + """
        rsync -a album/ "$SIDE/out/"; rsync -a "$SIDE/out/" in/; rsync -ai "$SIDE/out/" in/; rsync -aic album/ in/
        rsync -ai album/ in/; echo more >> "$SIDE/out/notes.txt"; rm "$SIDE/out/disc1/3.wav"
        rsync -ai --delete "$SIDE/out/" in/ | sort; rsync -an --delete --itemize-changes in/ "$SIDE/out/"
        """,
        needs=("tone.wav", "song.mp3"),
    ),
    Recipe(
        "rsync --inplace, --append, --partial and by parts",
        """
        cp long.wav new; printf changed | dd of=new bs=1 seek=1000000 conv=notrunc status=none; cp new "$SIDE/new"
        rsync -I --inplace --no-whole-file "$SIDE/new" long.wav; cmp new long.wav; rsync --no-whole-file "$SIDE/new" whole
        head -c 100000 new > part; rsync --append "$SIDE/new" part; cmp new part
        head -c 200000 new > part; rsync --append-verify "$SIDE/new" part; cmp new part
        echo y | dd of=part bs=1 conv=notrunc status=none; rsync --partial --no-whole-file -c "$SIDE/new" part; cmp new part
        rsync -a --partial-dir=.part "$SIDE/new" x/; rsync --remove-source-files new moved/; ls -A
        rsync -a --backup --backup-dir=old --existing words.txt moved/new; rsync --delay-updates -a moved/ two/; ls -R
        """,
        needs=("long.wav", "words.txt"),
    ),
    Recipe(
        "python: shutil",
        """
import os, shutil
shutil.copytree(".", os.environ["SIDE"] + "/copy")
shutil.copytree(os.environ["SIDE"] + "/copy", "copy", symlinks=True)
shutil.copytree("copy", "again", copy_function=shutil.copyfile)
shutil.move("again", "moved")
shutil.move("moved/words.txt", "copy/w")
shutil.move("copy", os.environ["SIDE"] + "/moved")
shutil.move(os.environ["SIDE"] + "/moved", "back")
os.utime("tone.wav", ns=(10**18, 10**18 + 7))
shutil.copy2("tone.wav", "two.wav")
shutil.copystat("tone.wav", "words.txt")
shutil.copy("tone.wav", "back")
shutil.rmtree("moved")
print(sorted(os.listdir()), sorted(os.listdir("back")), shutil.disk_usage(".").total > 0)
print(os.path.getsize(shutil.make_archive("packed", "tar", "back", "tone.wav")))
os.remove("packed.tar")
""",
        needs=("tone.wav", "words.txt"),
        python=True,
    ),
]

ARCHIVES = [
    Recipe(
        "tar packs and unpacks",
        _TREE
        + """
        tar --sort=name -cf all.tar album; tar -tf all.tar; tar -C .. --sort=name -cf rel.tar "${PWD##*/}/album" && rm rel.tar
        mkdir out; tar -C out -xf all.tar; diff -r album out/album && echo same; tar -df all.tar && echo 'no difference'
        touch -d @1 words.txt; tar -rf all.tar words.txt; tar -uf all.tar words.txt; tar --delete -f all.tar album/notes.txt
        tar -xOf all.tar words.txt | md5sum; tar -cf - album | tar -xf - -C out --keep-newer-files 2>/dev/null
        tar -I 'gzip -n' -cf all.tar.gz words.txt; tar -xzf all.tar.gz -C out; tar -tvf all.tar | wc -l; ls out
        """,
        needs=("tone.wav", "song.mp3", "words.txt"),
    ),
    Recipe(
        "zip and unzip",
        _TREE
        + """
        find album | LC_ALL=C sort | zip -qX all.zip -@; unzip -qt all.zip; unzip -q all.zip -d out; diff -r album out/album
        touch -d '2025-01-01' words.txt; zip -qX all.zip words.txt; zip -qd all.zip 'album/disc1/*'; touch -d 2025-02-02 words.txt; zip -qXu all.zip words.txt
        unzip -Z1 all.zip; unzip -p all.zip words.txt | md5sum; unzip -qo all.zip -d out; zip -qXm gone.zip album/notes.txt; ls album
        """,
        needs=("tone.wav", "song.mp3", "words.txt"),
    ),
    Recipe(
        "gzip, bzip2 and xz replace a file",
        """
        touch -d '2022-03-04 05:06:07' words.txt tone.wav; gzip -9 words.txt; gzip -k tone.wav; gzip -l words.txt.gz
        gunzip words.txt.gz; xz -0 tone.wav; xz -t tone.wav.xz; xz -d tone.wav.xz; zcat tone.wav.gz | cmp - tone.wav
        bzip2 -k words.txt; bzcat words.txt.bz2 | wc -l; stat -c '%n %Y %s' *
        """,
        needs=("tone.wav", "words.txt"),
    ),
    Recipe(
        "python: zipfile and tarfile append",
        """
import os, tarfile, zipfile
for name in ("words.txt", "takes.csv", "tone.wav"):
    os.utime(name, (1.6e9, 1.6e9))
    with zipfile.ZipFile("all.zip", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.write(name)
    with tarfile.open("all.tar", "a") as archive:
        archive.add(name)
print([i.filename for i in zipfile.ZipFile("all.zip").infolist()], zipfile.ZipFile("all.zip").testzip())
zipfile.ZipFile("all.zip").extractall("out")
print(tarfile.open("all.tar").getnames(), open("out/takes.csv").read() == open("takes.csv").read())
""",
        needs=("words.txt", "takes.csv", "tone.wav"),
        python=True,
    ),
]

GIT = [
    Recipe(
        "git: commits, branches, merge, gc and a clone",
        """
        git init -q -b main .; git config pack.threads 1; git config gc.auto 0; echo 'verse' > song.txt; git add -A
        git commit -qm one; git checkout -qb bridge; echo 'bridge' >> song.txt; git commit -qam two; git checkout -q main
        mkdir stems; echo notes > stems/notes; git add .; git commit -qm three; git merge -q --no-edit bridge
        git mv song.txt lyrics.txt; git commit -qm moved; git tag -a -m 'first' v1; git status --short
        echo scratch >> lyrics.txt; git stash -q; git stash pop -q; git checkout -q -- lyrics.txt; git rm -q stems/notes
        git reset -q --hard; git log --format='%H %s'; git gc -q; git fsck --strict 2>/dev/null; git repack -adq
        git clone -q --no-hardlinks . "$SIDE/clone"; git clone -q --no-hardlinks "$SIDE/clone" clone; git -C clone log --oneline | wc -l; git -C clone remote remove origin; git -C clone fsck
        git worktree add -q ../tree-$$ bridge 2>/dev/null && git worktree remove --force ../tree-$$; git count-objects | cut -d' ' -f1
        """,
        loose={
            "*.git/index": SAME_KIND,
            "*.git/objects/info/commit-graph*": SAME_KIND,
            "*.git/logs/*": SAME_KIND,
        },
    ),
    Recipe(
        "git: large binary files",
        """
        git init -q -b main .; git config core.bigFileThreshold 1m; git add . ; git commit -qm audio
        sox -R long.wav cut.wav trim 0 5; mv cut.wav long.wav; git commit -qam cut; git diff --stat HEAD~ | tail -1
        git checkout -q HEAD~; soxi -s long.wav; git checkout -q main; soxi -s long.wav; git fsck --full
        """,
        needs=("long.wav", "tone.wav"),
        loose={".git/index": SAME_KIND, ".git/logs/*": SAME_KIND},
    ),
]

SERVICES = [
    Recipe(
        "VoiceBeat: a catalogue, segments and layers",
        """
import json, os, tempfile
catalogue = json.load(open("catalog.json"))
os.makedirs("segments")
for sample in catalogue["samples"][::50]:
    with tempfile.NamedTemporaryFile(dir="segments", delete=False) as file:
        file.write(sample["id"].encode() * 1000)
    os.chmod(file.name, 0o644)
    os.replace(file.name, sample["path"])
    sample["stored"] = os.path.getsize(sample["path"])
with open("catalog.json.new", "w") as file:
    json.dump(catalogue, file, indent=1)
    file.flush()
    os.fsync(file.fileno())
os.rename("catalog.json.new", "catalog.json")
print(sum("stored" in sample for sample in json.load(open("catalog.json"))["samples"]), len(os.listdir("segments")))
""",
        needs=("catalog.json",),
        python=True,
    ),
    Recipe(
        "Rohimaya: manuscripts and books by user and job, all of a user deleted",
        """
        for user in anna ben; do for job in 1 2; do
            mkdir -p manuscripts/$user/$job audiobooks/$user/$job; cp words.txt manuscripts/$user/$job/book.txt
            cp song.m4a audiobooks/$user/$job/book.m4b; cat song.mp3 song.mp3 > audiobooks/$user/$job/book.mp3
        done; done
        rm -rf manuscripts/ben audiobooks/ben; find . -type f | sort; du -b --apparent-size audiobooks/anna/1/book.mp3
        """,
        needs=("words.txt", "song.m4a", "song.mp3"),
    ),
    Recipe(
        "TTS: results under the job's id, without an extension",
        """
        mkdir results; for id in 6f1c 0a2b ffee; do cat song.mp3 > results/$id.part; mv results/$id.part results/$id
            file -b --mime-type results/$id; done
        cat results/none 2>/dev/null || echo "code $?"; find results -newermt '2000-01-01' | sort; rm results/0a2b; ls results
        """,
        needs=("song.mp3",),
    ),
    Recipe(
        "AI Music: a worker writes, an API waits for it",
        """
        (for job in a b c; do sox -R tone.wav .$job.wav gain -3; mv .$job.wav $job.wav; echo done > $job.state; done) &
        for job in a b c; do until [ -s $job.state ]; do sleep 0.01; done; soxi -s $job.wav; cat $job.state; done; wait
        """,
        needs=("tone.wav",),
    ),
    Recipe(
        "Auto Shorts: old keys move to the new layout, a project goes",
        """
        for n in 1 2 3 4 5 6; do head -c 20000 tone.wav > scene_$n.wav; head -c 9000 song.mp3 > image_$n.png; done
        for n in 1 2 3 4 5 6; do p=users/u$((n % 2))/projects/p$((n % 3))/scenes/$n
            mkdir -p $p/audio $p/image; mv scene_$n.wav $p/audio/voice.wav; mv image_$n.png $p/image/still.png; done
        mkdir -p users/u0/projects/p0/output; cat users/u0/projects/*/scenes/*/audio/voice.wav > users/u0/projects/p0/output/film
        find users -type f -printf '%P %s\\n' | sort; rm -r users/u1/projects/p0; find users -type d | sort
        mv users/u0/projects/p0 users/u0/projects/renamed; find users/u0 -type f | sort
        """,
        needs=("tone.wav", "song.mp3"),
    ),
]

RECIPES = [*COPIES, *ARCHIVES, *GIT, *SERVICES]
