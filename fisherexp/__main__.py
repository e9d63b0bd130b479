from fisherexp.cli import main

main()
