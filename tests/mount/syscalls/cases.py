"""What programs may do to names, attributes and open files, as steps for `actor.py`.

Owns:  the cases. Each runs in a directory of its own on the mount and on the local disk, and every
       step has to come to the same on both: the errno, what stat shows of everything there, and
       which times moved.
Never: says what is right: the local file system does. What a bucket cannot have (hard links, pipes,
       devices) is not here but in test_posix.py, with its errno.
"""

from __future__ import annotations

CASES: dict[str, str] = {
    # ------------------------------------------------------------------ chmod
    "chmod of every kind": """
        create f 0644
        mkdir d 0755
        symlink f link
        chmod f 0111
        chmod d 0753
        chmod link 0321
        chmod f 06755
        chmod d 03777
        chmod f 0000
        chmod missing 0644
        chmod f/x 0644
        chmod {255} 0644
        chmod {256} 0644
        chmod {path} 0644
    """,
    "chmod by others": """
        create f 0644
        chown f 65534 65534
        anna chmod f 0600
        bert chmod f 0644
        carl chmod f 0644
        mkdir d 0700
        create d/f 0644
        anna chmod d/f 0600
        chown d/f 65534 65534
        anna chmod d/f 0600
        chmod d 0711
        anna chmod d/f 0640
        bert chmod d/f 0640
    """,
    "chmod takes set-group-id from who is not of the group": """
        create f 0755
        chown f 65534 65533
        anna chmod f 02755
        chown f 65534 65534
        anna chmod f 02755
        anna chmod f 06711
        chown f 65531 65534
        dora chmod f 02755
    """,
    "chmod sticky": """
        create f 0644
        chown f 65534 65534
        anna chmod f 01644
        mkdir d 0755
        chown d 65534 65534
        anna chmod d 01755
    """,
    # ------------------------------------------------------------------ chown
    "chown by root": """
        create f 0644
        mkdir d 0755
        symlink f link
        chown f 123 456
        chown d 65534 -1
        chown f -1 65533
        lchown link 77 88
        chown link 99 100
        chown f 0 0
        chown missing 0 0
        chown f/x 0 0
        chown {256} 0 0
        chown {path} 0 0
    """,
    "chown by others": """
        create f 0644
        chown f 65531 65531
        dora chown f -1 65534
        dora chown f -1 65533
        dora chown f 65534 -1
        dora chown f 65531 65531
        bert chown f 65533 65533
        bert chown f -1 65533
        mkdir d 0755
        chown d 65531 65531
        dora chown d 65531 65534
        anna chown d 65534 65534
    """,
    "chown takes set-id bits": """
        create f 0755
        chmod f 06755
        chown f 65531 65531
        chmod f 06755
        chown f 65531 65531
        chmod f 06755
        dora chown f -1 65534
        chmod f 06644
        dora chown f -1 65531
        create g 0755
        chmod g 06755
        chown g 0 -1
        mkdir d 0755
        chmod d 06755
        chown d 65531 65531
    """,
    "writing takes set-id bits": """
        create f 0777
        chmod f 06777
        anna write f 0 x
        chmod f 06777
        root write f 0 y
        chmod f 06777
        anna append f z
        chmod f 06777
        anna truncate f 0
        chmod f 06777
        anna open f WRONLY|TRUNC
        chmod f 06777
        anna open f RDONLY
        hold h f WRONLY
        fwrite h a
        fchown h 65533 65533
    """,
    "set-group-id without execution": """
        create f 0766
        chown f 65533 65533
        chmod f 02766
        bert write f 0 x
        anna write f 0 x
    """,
    # ------------------------------------------------------------------ mkdir, rmdir
    "mkdir": """
        mkdir d 0755
        mkdir d 0755
        umask=000 mkdir all 0777
        umask=077 mkdir own 0777
        umask=070 mkdir g 0345
        mkdir t 01777
        mkdir d/e 0755
        mkdir missing/e 0755
        create f
        mkdir f 0755
        mkdir f/e 0755
        symlink nowhere link
        mkdir link 0755
        mkdir {255} 0755
        mkdir {256} 0755
        mkdir {path} 0755
        mkdir .
        mkdir d/..
    """,
    "mkdir by others": """
        mkdir d 0755
        chown d 65534 65534
        anna mkdir d/a 0755
        bert mkdir d/b 0755
        carl mkdir d/c 0755
        chmod d 0775
        carl mkdir d/c 0755
        chmod d 0644
        anna mkdir d/x 0755
    """,
    "rmdir": """
        mkdir d
        mkdir d/e
        rmdir d
        create d/e/f
        rmdir d/e
        unlink d/e/f
        rmdir d/e
        rmdir d
        rmdir d
        create f
        rmdir f
        rmdir f/x
        symlink f link
        rmdir link
        rmdir {256}
        rmdir {path}
        mkdir x
        rmdir x/.
        rmdir x/..
        mkdir x/y
        symlink x/y toy
        rmdir toy
    """,
    "rmdir by others": """
        mkdir d 0755
        mkdir d/e
        anna rmdir d/e
        chown d 65534 65534
        anna rmdir d/e
        mkdir d/e
        chmod d 0555
        anna rmdir d/e
    """,
    # ------------------------------------------------------------------ sticky directories
    "removing from a sticky directory": """
        mkdir t
        chmod t 01777
        chown t 65531 65531
        anna create t/a
        bert create t/b
        bert mkdir t/d
        anna unlink t/b
        anna rmdir t/d
        anna unlink t/a
        dora unlink t/b
        bert rmdir t/d
    """,
    "renaming in a sticky directory": """
        mkdir t
        chmod t 01777
        anna create t/a
        bert create t/b
        anna rename t/b t/c
        anna rename t/a t/b
        anna rename t/a t/c
        bert rename t/c t/b
        mkdir free
        chmod free 0777
        bert rename t/c free/c
        anna rename free/x t/b
        bert create free/x
        bert rename free/x t/c
        anna mkdir t/d
        bert rename t/d free/d
        anna rename t/d free/d
    """,
    "directories of others are not moved": """
        mkdir one 0777
        chmod one 0777
        mkdir two
        chmod two 0777
        mkdir one/d 0755
        anna rename one/d two/d
        anna rename one/d one/e
        chown one/e 65534 65534
        anna rename one/e two/d
    """,
    # ------------------------------------------------------------------ open
    "open makes a file": """
        open f CREAT|WRONLY 0755
        umask=077 open g CREAT|WRONLY 0666
        umask=000 open h CREAT|WRONLY 0666
        open s CREAT|WRONLY 06755
        open f CREAT|EXCL|WRONLY
        open f CREAT|RDONLY
        open missing RDONLY
        open missing/x CREAT|WRONLY
        open f/x CREAT|WRONLY
        symlink nowhere link
        open link CREAT|EXCL|WRONLY
        open link CREAT|WRONLY
        open link RDONLY|NOFOLLOW
        open {255} CREAT|WRONLY
        open {256} CREAT|WRONLY
        open {path} CREAT|WRONLY
        open f DIRECTORY|RDONLY
        mkdir d
        open d WRONLY
        open d RDWR
        open d RDONLY
        open d CREAT|WRONLY
        open d RDONLY|TRUNC
        open ro CREAT|RDONLY 0400
    """,
    "open by others": """
        create f 0640
        chown f 65534 65534
        anna open f RDWR
        carl open f RDONLY
        carl open f WRONLY
        dora open f RDONLY
        bert open f RDONLY
        chmod f 0000
        anna open f RDONLY
        root open f RDWR
        chmod f 0060
        anna open f RDONLY
        carl open f RDWR
        chmod f 0007
        bert open f RDWR
        carl open f RDONLY
        mkdir d 0700
        create d/f 0666
        chmod d/f 0666
        bert open d/f RDONLY
        chmod d 0711
        bert open d/f RDONLY
        bert open d/new CREAT|WRONLY
        bert open d RDONLY
        anna open f WRONLY|TRUNC
        bert access f 4
        anna access f 4
        carl access d 1
    """,
    "who makes a file owns it": """
        anna create a
        dora create b
        bert mkdir c
        carl symlink a d
        mkdir group 0777
        chown group 0 65533
        chmod group 02777
        anna create group/a
        anna mkdir group/b
        anna symlink a group/c
        anna open group/set CREAT|WRONLY 02755
        bert open group/set2 CREAT|WRONLY 02755
        anna create group/b/deep
    """,
    "truncation on open": """
        create f
        write f 0 hello
        open f WRONLY|TRUNC
        open f WRONLY|TRUNC
        write f 0 hello
        open f RDWR|TRUNC
        open f RDONLY
        open f CREAT|TRUNC|WRONLY
    """,
    # ------------------------------------------------------------------ links and loops
    "symbolic links": """
        symlink f link
        readlink link
        read link
        create f
        write f 0 hello
        read link
        symlink f link
        symlink f f
        symlink x missing/link
        symlink x f/link
        symlink x {255}
        symlink x {256}
        symlink x {path}
        symlink {255} long
        mkdir d
        symlink ../f d/up
        read d/up
        readlink f
        readlink missing
        unlink link
        symlink d dir
        ls dir
        create dir/inside
        rename dir other
        anna symlink f d/no
    """,
    "loops": """
        symlink a b
        symlink b a
        open a RDONLY
        chmod a 0644
        chown a 0 0
        truncate a 0
        mkdir a/x
        unlink a/x
        rmdir a/x
        rename a/x y
        rename y a/x
        symlink x a/x
        chdir a
        utimens a 1.0 2.0
        lchown a 5 6
        utimens a 1.5 2.5 nofollow
    """,
    # ------------------------------------------------------------------ unlink
    "unlink": """
        create f
        unlink f
        unlink f
        mkdir d
        unlink d
        create d/f
        unlink d/f
        unlink d/f/x
        symlink d link
        unlink link
        unlink {256}
        unlink {path}
        anna unlink d/f
        create d/f
        anna unlink d/f
        chmod d 0777
        anna unlink d/f
    """,
    "unlinked while open": """
        hold h f CREAT|RDWR
        fwrite h hello
        unlink f
        fstat h
        fwrite h more
        fread h
        fchmod h 0600
        ftruncate h 3
        fstat h
        create f
        write f 0 other
        fread h
        read f
        fsync h
        close h
        read f
    """,
    # ------------------------------------------------------------------ rename
    "rename of files": """
        create a
        write a 0 hello
        rename a b
        read b
        rename missing c
        create c
        write c 0 world
        rename b c
        read c
        rename c c
        mkdir d
        rename c d/c
        rename d/c d
        rename d d/c
        rename d/c missing/c
        rename d/c d/c/x
        rename d/c {255}
        rename {255} d/c
        rename d/c {256}
        rename {256} x
        rename d/c {path}
        symlink d/c link
        rename link link2
        read link2
        create e
        rename e link2
        rename link2 .
        rename d/. x
        rename d/.. x
    """,
    "rename of directories": """
        mkdir a
        create a/f
        write a/f 0 hello
        rename a b
        read b/f
        mkdir c
        rename b c
        ls c
        mkdir e
        create e/x
        rename c e
        rename e c/e
        rename c c/e/c
        rename c c/c
        create f
        rename c f
        rename f c
        mkdir deep
        rename c deep/c
        read deep/c/f
        rename deep/c .
        rename deep/c c
        read c/e/x
    """,
    "rename by others": """
        mkdir one
        mkdir two
        chown one 65534 65534
        anna create one/f
        anna rename one/f two/f
        anna rename one/f one/g
        chown two 65534 65534
        anna rename one/g two/g
        chmod two 0555
        anna rename two/g one/g
        bert rename two/g two/h
    """,
    "rename while open": """
        hold h a CREAT|RDWR
        fwrite h one
        rename a b
        fwrite h two
        fstat h
        create c
        write c 0 other
        hold k c RDWR
        rename b c
        fread k
        fstat k
        fwrite k x
        fread h
        read c
        close h
        close k
        read c
    """,
    "rename flags": """
        create a
        write a 0 aaa
        create b
        write b 0 bb
        rename a b 1
        rename a c 1
        rename missing c 1
        rename missing d 1
        rename b c 2
        read b
        read c
        rename b missing 2
        rename missing b 2
        rename b c 3
        rename b b 2
        rename b b 1
    """,
    "exchange of directories": """
        mkdir one
        create one/f
        mkdir two
        mkdir two/sub
        create file
        rename one two 2
        ls one
        ls two
        rename one file 2
        ls file
        rename file file/sub 2
        rename file/sub file 2
        rename file/sub two 2
        ls two
        ls file/sub
        symlink file link
        rename link two 2
        readlink two
    """,
    # ------------------------------------------------------------------ truncate
    "truncate": """
        create f
        write f 0 hello
        truncate f 3
        read f
        truncate f 10
        read f
        truncate f 10
        truncate f 0
        truncate f 0
        truncate f 1234567
        truncate missing 0
        truncate f/x 0
        mkdir d
        truncate d 0
        truncate {256} 0
        truncate {path} 0
        truncate f -1
        anna truncate f 0
        chown f 65534 65534
        anna truncate f 5
        chmod f 0444
        anna truncate f 0
        root truncate f 1
    """,
    "truncate what others have open": """
        hold a f CREAT|RDWR
        hold b f RDWR
        fwrite a 0123456789
        ftruncate b 4
        fread a
        fstat a
        fwrite a abc
        fread b
        ftruncate b 20
        fstat a
        fread a
        truncate f 2
        fread b
        open f WRONLY|TRUNC
        fstat a
        fwrite b x
        fread a
        hold r f RDONLY
        ftruncate r 0
        ftruncate a -1
    """,
    "appending by several": """
        hold a f CREAT|WRONLY|APPEND
        hold b f WRONLY|APPEND
        hold c f RDWR
        fwrite a one
        fwrite b two
        fwrite a three
        fwrite c X
        fpwrite a 0 four
        ftruncate c 5
        fwrite b six
        fread c
        append f seven
        fread c
    """,
    "sparse": """
        hold h f CREAT|RDWR
        fpwrite h 100 end
        fstat h
        fread h
        ftruncate h 50
        fpwrite h 200 x
        fread h
        close h
        read f
    """,
    "preallocation": """
        create f
        fallocate f 0 100
        fallocate f 50 10
        write f 0 hello
        fallocate f 100 1000
        fallocate f 0 0
        fallocate f -1 10
        mkdir d
        fallocate d 0 10
        fallocate missing 0 10
    """,
    # ------------------------------------------------------------------ times
    "times that are set": """
        create f
        utimens f 1.5 2.123456789
        utimens f now 5.0
        utimens f 7.0 now
        utimens f omit 9.0
        times f
        utimens f 11.0 omit
        utimens f omit omit
        utimens f now now
        utimens f -5.25 -7.75
        utimens f 4294967296.1 2147483648.2
        mkdir d
        utimens d 1.0 2.0
        create d/x
        symlink f link
        utimens link 3.0 4.0 nofollow
        utimens link 13.0 14.0
        utimens missing 1.0 1.0
        utimens f/x 1.0 1.0
        write f 0 x
        chmod f 0600
    """,
    "times by others": """
        create f 0644
        anna utimens f now now
        anna utimens f 1.0 1.0
        chmod f 0666
        anna utimens f now now
        anna utimens f 1.0 1.0
        anna utimens f omit now
        anna utimens f now omit
        chown f 65534 65534
        chmod f 0444
        anna utimens f 1.0 1.0
        anna utimens f now now
        bert utimens f now now
    """,
    "times that move by themselves": """
        mkdir d
        create d/f
        write d/f 0 x
        read d/f
        truncate d/f 1
        truncate d/f 0
        chmod d/f 0600
        chown d/f 1 1
        rename d/f d/g
        symlink g d/l
        unlink d/l
        mkdir d/e
        rename d/e e
        rmdir e
        open d/g RDWR
        open d/g CREAT|WRONLY
        hold h d/g RDWR
        fwrite h x
        fsync h
        close h
        unlink d/g
    """,
    # ------------------------------------------------------------------ names
    "names of all kinds": """
        create %41+?#&=
        create 'quotes"
        create \u00e9t\u00e9
        create \U0001f3a7
        create -rf
        create ~
        create *
        create .hidden
        create CASE
        create case
        create tab\there
        create new\nline
        create ...
        ls .
        rename CASE other
        ls .
        unlink case
        ls .
    """,
}


def steps(case: str) -> list[str]:
    """Words are separated by one space; a tab or a newline in a name stays what it is."""
    return [
        line.removeprefix(" " * 8) for line in CASES[case].strip("\n ").split("\n        ") if line.strip()
    ]
