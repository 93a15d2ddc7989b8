from tools.judge.command import main

main()
