useradd -m anonymous
