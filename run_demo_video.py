"""`make demo-video`: the commands of a first session on demo clips; `mynah demo-video` is the same program."""

from mynah.commands.demo_video import main

if __name__ == "__main__":
    main("python run_demo_video.py")
