"""python -m nslab.cli"""

from nslab.cli import main

main()
